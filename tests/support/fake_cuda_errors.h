// CUDA's words for its errors, as far as the stand-in gives them.
#pragma once

#include "stage/cuda_runtime.h"

namespace ckptring::test::fake_cuda {

/// As cudaGetErrorName and cudaGetErrorString; "unrecognized error code" for any other error.
const char* error_name(cudaError_t error);
const char* error_string(cudaError_t error);

}  // namespace ckptring::test::fake_cuda
