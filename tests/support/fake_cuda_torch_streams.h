// How the parts of fake_cuda_torch.h find the FakeCuda and its streams.
#pragma once

#include "support/fake_cuda.h"

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

namespace ckptring::test::fake_cuda {

/// The one that lives.  @throws c10::Error if there is none
FakeCuda& living();

/// This thread's current stream of a device, as FakeCuda's functions take it.
cudaStream_t current_handle(c10::Device device);
/// Any stream of the guard's, likewise.
cudaStream_t handle_of(const c10::Stream& stream);

}  // namespace ckptring::test::fake_cuda
