// Private memory in pages of 2 MiB, where the system has them to give. A disk transfers to and from
// such memory in far fewer pieces than to pages of 4 KiB that lie anywhere.
#pragma once

#include <cstddef>
#include <span>

namespace ckptring::os {

class HugeMemory {
 public:
  /// Zeros, allocated when first touched. A forked child does not get them: while a disk reads into
  /// them, or a device copies to them, a fork could otherwise leave those bytes to the child's copy
  /// of the page. Nor does a core dump: they hold what is in a file, or on its way there.
  /// @throws Error out_of_memory
  explicit HugeMemory(std::size_t bytes);
  ~HugeMemory();
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;

  /// At least as many as asked for.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> mapping_;  ///< with what aligns `bytes_`
  std::span<std::byte> bytes_;
};

}  // namespace ckptring::os
