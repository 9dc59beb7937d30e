// A few blocks of private memory, which take the ring's place on the sync path.
#pragma once

#include "os/huge_memory.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ckptring::save {

/// A forked child does not get them.
class PrivateBlocks {
 public:
  static constexpr std::uint64_t kBlockBytes = 4ull << 20;

  /// @throws Error out_of_memory
  explicit PrivateBlocks(std::size_t count) : count_(count), memory_(count * kBlockBytes) {
    give_back_all();
  }

  [[nodiscard]] std::span<std::byte> memory() const noexcept {
    return memory_.bytes().first(count_ * kBlockBytes);
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
    for (std::size_t index = count_; index > 0; --index) free_.push_back(index - 1);
  }

 private:
  std::size_t count_;
  os::HugeMemory memory_;
  std::vector<std::size_t> free_;
};

}  // namespace ckptring::save
