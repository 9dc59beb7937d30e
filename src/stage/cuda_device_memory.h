// Memory of a CUDA device.
#pragma once

#include "stage/cuda_runtime.h"
#include "stage/device_copies.h"

#include <cstddef>
#include <cstdint>

namespace ckptring::stage {

class CudaDeviceMemory final : public DeviceMemory {
 public:
  /// @throws Error out_of_memory, device_failed
  CudaDeviceMemory(const CudaRuntime& runtime, int device, std::uint64_t bytes);
  /// As CUDA frees memory: waits for the whole device.
  ~CudaDeviceMemory() override;
  CudaDeviceMemory(const CudaDeviceMemory&) = delete;
  CudaDeviceMemory& operator=(const CudaDeviceMemory&) = delete;

  [[nodiscard]] std::byte* data() const noexcept override {
    return static_cast<std::byte*>(memory_);
  }

 private:
  const CudaRuntime& runtime_;
  const int device_;
  void* memory_ = nullptr;
};

}  // namespace ckptring::stage
