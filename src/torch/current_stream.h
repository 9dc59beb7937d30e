// Streams of CUDA devices, through the interface that libtorch's core has for all devices: nothing
// of its CUDA part is linked.
#pragma once

#include <c10/core/Stream.h>

#include <functional>

namespace ckptring::torch_state {

/// Calls `use` with the native handle (`cudaStream_t`) of a stream, whose device is current
/// meanwhile.
/// @throws Error device_failed, also if libtorch has no CUDA; what `use` throws
void use_stream(const c10::Stream& stream, const std::function<void(void* native)>& use);

/// Until everything has ended that the calling thread has enqueued so far on a CUDA device.
/// @throws Error device_failed, also for what failed there
void wait_for_current_stream(int device);

/// `use_stream` with the one on which the calling thread enqueues its work.
/// @throws Error as use_stream
void use_current_stream(int device, const std::function<void(void* native)>& use);

}  // namespace ckptring::torch_state
