// Device memory of a FakeCuda, and pinned host memory, as libtorch allocates them.
#pragma once

#include "support/fake_cuda.h"

#include <c10/core/Allocator.h>

namespace ckptring::test::fake_cuda {

/// Of the current device; registered for c10::kCUDA.
c10::Allocator& device_allocator();

/// Of pinned host memory, for all devices. Freed at once: no pending work may use it.
c10::Allocator& pinned_allocator();

/// The memory is also used by this stream: it is freed after what the stream holds then.
void record_stream(const c10::DataPtr& memory, cudaStream_t stream);

}  // namespace ckptring::test::fake_cuda
