// Checking what calls of the CUDA runtime return, and on which device they work.
#pragma once

#include "stage/cuda_runtime.h"

#include <ckptring/error.h>

#include <string>

namespace ckptring::stage {

/// "cudaErrorNoDevice: no CUDA-capable device is detected".
std::string words_of(const CudaRuntime& runtime, cudaError_t result);

/// @throws Error device_failed if `result` is none of success. The thread's last error is cleared,
///         so that nobody else takes it for theirs; one that breaks the context stays with it.
void check_cuda(const CudaRuntime& runtime, cudaError_t result, const std::string& operation);

/// For calls whose failure changes nothing here. Clears the thread's last error likewise.
void allow_failure(const CudaRuntime& runtime, cudaError_t result) noexcept;

/// Makes a device this thread's current one, for as long as this lives.
class CudaDeviceScope {
 public:
  /// @param operation  what is to be done there
  /// @throws Error device_failed
  CudaDeviceScope(const CudaRuntime& runtime, int device, const std::string& operation);
  ~CudaDeviceScope();
  CudaDeviceScope(const CudaDeviceScope&) = delete;
  CudaDeviceScope& operator=(const CudaDeviceScope&) = delete;

 private:
  const CudaRuntime& runtime_;
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace ckptring::stage
