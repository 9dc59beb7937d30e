// A few blocks of private memory, which take the ring's place on the sync path.
#pragma once

#include <ckptring/error.h>

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ckptring::save {

/// A forked child does not get them.
class PrivateBlocks {
 public:
  static constexpr std::uint64_t kBlockBytes = 4ull << 20;

  /// @throws Error out_of_memory
  explicit PrivateBlocks(std::size_t count) : bytes_(count * kBlockBytes) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) {
      throw Error::from_errno(
          errno, "allocate " + std::to_string(bytes_ >> 20) + " MiB of blocks for a save", "");
    }
    (void)::madvise(memory_, bytes_, MADV_HUGEPAGE);  // refused: only slower
    // Devices copy to these pages from one save to the next: with a fork in between they could be
    // left to the child, and this process write from others. Of anonymous memory it is not refused.
    (void)::madvise(memory_, bytes_, MADV_DONTFORK);
    give_back_all();
  }
  ~PrivateBlocks() { (void)::munmap(memory_, bytes_); }
  PrivateBlocks(const PrivateBlocks&) = delete;
  PrivateBlocks& operator=(const PrivateBlocks&) = delete;

  [[nodiscard]] std::span<std::byte> memory() const noexcept {
    return {static_cast<std::byte*>(memory_), bytes_};
  }
  [[nodiscard]] std::span<std::byte> at(std::size_t index) const noexcept {
    return memory().subspan(index * kBlockBytes, kBlockBytes);
  }
  [[nodiscard]] bool has_free() const noexcept { return !free_.empty(); }
  std::size_t take() noexcept {
    const std::size_t index = free_.back();
    free_.pop_back();
    return index;
  }
  void give_back(std::size_t index) { free_.push_back(index); }
  void give_back_all() {
    free_.clear();
    for (std::size_t index = bytes_ / kBlockBytes; index > 0; --index) free_.push_back(index - 1);
  }

 private:
  std::size_t bytes_;
  void* memory_ = nullptr;
  std::vector<std::size_t> free_;
};

}  // namespace ckptring::save
