// Tensors on c10::kCUDA that live in the memory of a FakeCuda, for programs that link torch_cpu and
// c10 only, where libtorch registers nothing for that device.
//
// Linking this library registers, for the whole process and for whatever FakeCuda lives:
//  - a device guard: current device (the runtime's own, so cudaSetDevice changes it; but, as with
//    libtorch, a guard that ends does not make a device current again that has no context, and only
//    remembers that it should be), current stream of each thread and device, native stream handles
//    (null for the default stream), a stream from the pool, events;
//  - an allocator. Memory is freed in the order of the stream that was current when it was
//    allocated, and of those it was recorded on, as by libtorch's caching allocator: work of other
//    streams has to be ordered before the last reference goes. Addresses are never reused;
//  - operators. Those whose results are their arguments (`add_`, `mul_`, `fill_`, `addcdiv_`, the
//    `out` of others; through it also most that return a new tensor) run as kernels in the current
//    stream of the tensors' device, which calls libtorch's CPU operators on the device's bytes.
//    So does native_batch_norm, with what it writes to without saying so. Copies between host and
//    device run in that stream as well; those of pageable memory are synchronous, as CUDA's are.
//    All others wait, and are done on copies of the host;
//  - pinned host memory. Times between events are 0.
// None of it is counted or refused by the FakeCuda, except that kernels are counted as launches,
// and that c10 events, and whoever waits for a stream by the guard, use the table as libtorch's do.
// What a broken device refuses is thrown as a c10::Error.
//
// Tensors end before their FakeCuda.
#pragma once

#include "support/fake_cuda.h"
#include "support/moved_state.h"

#include <c10/core/Stream.h>

namespace ckptring::test {

/// A stream of the training program that is not the default one. Made current by a
/// c10::StreamGuard.
c10::Stream pool_stream(int device = 0);
/// The runtime's handle: null for the default stream.
cudaStream_t native_handle(const c10::Stream& stream);
/// That of this thread.
c10::Stream current_stream(int device = 0);
/// That of this thread, as libtorch knows it.
c10::Device current_device();
/// Until the stream's work has ended. Not counted.
void synchronise(const c10::Stream& stream);

/// The nth copy of libtorch between host and device from now on throws what libtorch throws where
/// CUDA returns this error. Once.
void fail_libtorch_copy(unsigned nth, cudaError_t error);
/// The same for the nth piece of device memory that libtorch allocates, which is then out of it.
void fail_libtorch_allocation(unsigned nth);

}  // namespace ckptring::test
