// One write on its way, through any number of short results.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckptring::store {

class PendingWrite {
 public:
  PendingWrite() = default;
  /// @param unit what offset and size of each system call must be multiples of
  PendingWrite(std::uint64_t token, std::uint64_t offset, const std::byte* data, std::uint64_t size,
               std::uint64_t unit) noexcept
      : token_(token), offset_(offset), data_(data), size_(size), unit_(unit) {}

  enum class Next { finished, again, failed };

  /// Takes in a system call's result: bytes written, or a negative error number.
  Next advance(std::int64_t result) noexcept;

  [[nodiscard]] std::uint64_t token() const noexcept { return token_; }
  /// What is left to write.
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_ + written_; }
  [[nodiscard]] const std::byte* data() const noexcept { return data_ + written_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_ - written_; }
  /// The error number, once failed.
  [[nodiscard]] int error() const noexcept { return error_; }

 private:
  std::uint64_t token_ = 0;
  std::uint64_t offset_ = 0;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  std::uint64_t unit_ = 1;
  std::uint64_t written_ = 0;
  int stuck_ = 0;  ///< results in a row that brought nothing
  int error_ = 0;
};

}  // namespace ckptring::store
