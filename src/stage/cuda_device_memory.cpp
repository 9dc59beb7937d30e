#include "stage/cuda_device_memory.h"

#include "os/own_thread.h"
#include "stage/cuda_call.h"

#include <fmt/format.h>

namespace ckptring::stage {

CudaDeviceMemory::CudaDeviceMemory(const CudaRuntime& runtime, int device, std::uint64_t bytes)
    : runtime_(runtime), device_(device) {
  const std::string operation = fmt::format("allocate {} bytes on device {}", bytes, device);
  const CudaDeviceScope scope(runtime_, device_, operation);
  const cudaError_t result = runtime_.malloc(&memory_, static_cast<std::size_t>(bytes));
  if (result == cudaErrorMemoryAllocation) {
    allow_failure(runtime_, result);
    throw Error(ErrorCode::out_of_memory, operation, "", words_of(runtime_, result));
  }
  check_cuda(runtime_, result, operation);
}

CudaDeviceMemory::~CudaDeviceMemory() {
  // Whoever ends this may never have used CUDA: see CudaDeviceScope.
  os::run_in_own_thread("ckptring-free", [this] {
    const CudaDeviceScope scope(runtime_, device_);
    allow_failure(runtime_, runtime_.free(memory_));  // a broken context holds nothing
  });
}

}  // namespace ckptring::stage
