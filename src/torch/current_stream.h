// Streams of CUDA devices, through the interface that libtorch's core has for all devices: nothing
// of its CUDA part is linked.
#pragma once

#include "save/save_job.h"
#include "stage/device_access.h"
#include "stage/source.h"

#include <c10/core/Stream.h>

#include <span>
#include <vector>

namespace ckptring::torch_state {

/// The native handle (`cudaStream_t`) of a stream.
/// @throws Error device_failed if libtorch has no CUDA
void* native_handle(const c10::Stream& stream);

/// The stream on which the calling thread enqueues its work on a CUDA device.
/// @throws Error device_failed
c10::Stream current_stream(int device);

/// Marks what the calling thread has enqueued so far on every device that a source is on.
/// @throws Error device_failed
std::vector<save::DeviceState> mark_devices(std::span<const stage::Source> sources,
                                            stage::DeviceAccess& devices);

}  // namespace ckptring::torch_state
