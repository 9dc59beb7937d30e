// Memory of the same kind as the ring: a memfd, populated, in huge pages where they can be had.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bench {

class WarmMemory {
 public:
  /// @throws std::system_error
  explicit WarmMemory(std::uint64_t bytes);
  ~WarmMemory();
  WarmMemory(const WarmMemory&) = delete;
  WarmMemory& operator=(const WarmMemory&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  /// How much of it is in pages of 2 MiB.
  [[nodiscard]] std::uint64_t huge_bytes() const noexcept { return huge_bytes_; }

 private:
  std::span<std::byte> mapping_;  ///< with the part in front that aligns `bytes_`
  std::span<std::byte> bytes_;
  std::uint64_t huge_bytes_ = 0;
};

}  // namespace bench
