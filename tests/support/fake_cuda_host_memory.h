// Page-locked host memory of the stand-in for CUDA.
#pragma once

#include "stage/cuda_runtime.h"
#include "support/fake_cuda_streams.h"

#include <cstddef>
#include <map>
#include <memory>

namespace ckptring::test::fake_cuda {

struct PinnedRange : Resource {
  const std::byte* begin = nullptr;
  std::size_t bytes = 0;
  int device = 0;         ///< that was current
  bool portable = false;  ///< pinned for the other devices too
  std::unique_ptr<std::byte, void (*)(void*)> allocated{nullptr, nullptr};  ///< by cudaHostAlloc
};

/// Whether all pages of the range are mapped, and whether all of them are there: have been written
/// to, or populated.
bool is_mapped(const void* begin, std::size_t bytes);
bool is_populated(const void* begin, std::size_t bytes);

class HostMemory {
 public:
  /// More than this is refused as if the system's limit were reached.
  void limit(std::size_t bytes) { limit_ = bytes; }

  cudaError_t add(void* begin, std::size_t bytes, int device, bool portable);
  cudaError_t allocate(void** begin, std::size_t bytes, int device, bool portable);
  /// The range that begins there and was added, or allocated; it is no longer known.
  std::shared_ptr<PinnedRange> remove(const void* begin, bool allocated);

  struct Found {
    std::shared_ptr<PinnedRange> pinned;  ///< that holds all of it
    bool straddles = false;               ///< some of it is pinned, but not all in one range
  };
  [[nodiscard]] Found find(const void* begin, std::size_t bytes) const;

  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] const std::map<const std::byte*, std::shared_ptr<PinnedRange>>& all() const {
    return ranges_;
  }

 private:
  cudaError_t insert(std::shared_ptr<PinnedRange> range);

  std::map<const std::byte*, std::shared_ptr<PinnedRange>> ranges_;  ///< by their begin
  std::size_t bytes_ = 0;
  std::size_t limit_ = static_cast<std::size_t>(-1);
};

}  // namespace ckptring::test::fake_cuda
