// A few buffers of pinned memory, for copies from and to memory that could not be registered.
#pragma once

#include "stage/cuda_runtime.h"

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::stage {

/// Thread-safe.
class CudaWindow {
 public:
  static constexpr std::size_t kBufferBytes = 4u << 20;
  static constexpr std::size_t kBuffers = 4;

  CudaWindow(const CudaRuntime& runtime, int device) : runtime_(runtime), device_(device) {}
  /// Every buffer was given back.
  ~CudaWindow();
  CudaWindow(const CudaWindow&) = delete;
  CudaWindow& operator=(const CudaWindow&) = delete;

  /// A buffer of kBufferBytes; waits until one is given back. The first call makes all of them. The
  /// device is current.
  /// @param operation  what it is for, for the message
  /// @throws Error device_failed
  std::byte* take(const std::string& operation);
  void give_back(std::byte* buffer);

 private:
  const CudaRuntime& runtime_;
  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::byte* memory_ = nullptr;
  std::vector<std::byte*> free_;
};

}  // namespace ckptring::stage
