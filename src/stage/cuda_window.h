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

  explicit CudaWindow(const CudaRuntime& runtime) : runtime_(runtime) {}
  /// Every buffer was given back.
  ~CudaWindow();
  CudaWindow(const CudaWindow&) = delete;
  CudaWindow& operator=(const CudaWindow&) = delete;

  /// A buffer of kBufferBytes; waits until one is given back. The first call makes all of them, on
  /// the thread's current device.
  /// @param operation  what it is for, for the message
  /// @throws Error device_failed
  std::byte* take(const std::string& operation);
  void give_back(std::byte* buffer);

 private:
  const CudaRuntime& runtime_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::byte* memory_ = nullptr;
  std::vector<std::byte*> free_;
};

}  // namespace ckptring::stage
