#include "stage/cuda_window.h"

#include "stage/cuda_call.h"

namespace ckptring::stage {

CudaWindow::~CudaWindow() {
  if (memory_ == nullptr) return;
  const CudaDeviceScope scope(runtime_, device_);
  allow_failure(runtime_, runtime_.free_host(memory_));  // a broken context holds nothing
}

std::byte* CudaWindow::take(const std::string& operation) {
  std::unique_lock lock(mutex_);
  if (memory_ == nullptr) {
    free_.reserve(kBuffers);
    void* memory = nullptr;
    check_cuda(runtime_,
               runtime_.host_alloc(&memory, kBuffers * kBufferBytes, cudaHostAllocPortable),
               operation + ", allocate a window of pinned memory");
    memory_ = static_cast<std::byte*>(memory);
    for (std::size_t i = 0; i < kBuffers; ++i) free_.push_back(memory_ + i * kBufferBytes);
  }
  // Whoever has one gives it back when its copy has ended.
  changed_.wait(lock, [this] { return !free_.empty(); });
  std::byte* const buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void CudaWindow::give_back(std::byte* buffer) {
  {
    const std::scoped_lock lock(mutex_);
    free_.push_back(buffer);
  }
  changed_.notify_one();
}

}  // namespace ckptring::stage
