// Streams of CUDA devices, through the interface that libtorch's core has for all devices: nothing
// of its CUDA part is linked.
#pragma once

#include "save/save_job.h"
#include "stage/device_copies.h"

#include <c10/core/Stream.h>

#include <set>
#include <vector>

namespace ckptring::torch_state {

/// The native handle (`cudaStream_t`) of a stream.
/// @throws Error device_failed if libtorch has no CUDA
void* native_handle(const c10::Stream& stream);

/// The stream on which the calling thread enqueues its work on a CUDA device.
/// @throws Error device_failed
c10::Stream current_stream(int device);

/// Marks what the calling thread has enqueued so far on each of these devices.
/// @throws Error device_failed
std::vector<save::DeviceState> mark_devices(const std::set<int>& devices,
                                            stage::DeviceCopies& copies);

}  // namespace ckptring::torch_state
