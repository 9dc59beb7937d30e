// Device memory of a FakeCuda, and pinned host memory, as libtorch allocates them.
#pragma once

#include "support/fake_cuda.h"

#include <c10/core/Allocator.h>

#include <atomic>

namespace ckptring::test::fake_cuda {

/// Of the current device; registered for c10::kCUDA.
c10::Allocator& device_allocator();

/// Of pinned host memory, for all devices. Freed at once: no pending work may use it.
c10::Allocator& pinned_allocator();

/// The memory is also used by this stream: it is freed after what the stream holds then.
void record_stream(const c10::DataPtr& memory, cudaStream_t stream);

/// Counts down to what is to fail; whether this is it. At 0 nothing is.
bool is_due(std::atomic<unsigned>& countdown);

}  // namespace ckptring::test::fake_cuda
