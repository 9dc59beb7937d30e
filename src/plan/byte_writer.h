// Appends little-endian fields to a growing run of bytes.
#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace ckptring::plan {

static_assert(std::endian::native == std::endian::little, "fields are written as they lie here");

/// Fields of a header of `Size` bytes, put together on the stack and appended at once: the many
/// small appends would be the largest part of what laying out a record costs.
template <std::size_t Size>
class Fields {
 public:
  Fields& le16(std::uint16_t value) { return put(value); }
  Fields& le32(std::uint32_t value) { return put(value); }
  Fields& le64(std::uint64_t value) { return put(value); }
  /// All of them; the header must be complete.
  [[nodiscard]] std::span<const std::byte> view() const {
    assert(at_ == Size);
    return bytes_;
  }

 private:
  template <class T>
  Fields& put(T value) {
    assert(at_ + sizeof value <= Size);
    std::memcpy(bytes_.data() + at_, &value, sizeof value);
    at_ += sizeof value;
    return *this;
  }

  std::array<std::byte, Size> bytes_;
  std::size_t at_ = 0;
};

class ByteWriter {
 public:
  ByteWriter() = default;
  /// Writes into memory of something else, whose bytes are forgotten.
  explicit ByteWriter(std::vector<std::byte> memory) : bytes_(std::move(memory)) { bytes_.clear(); }

  void u8(std::uint8_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
  void le16(std::uint16_t value) { put(value); }
  void le32(std::uint32_t value) { put(value); }
  void le64(std::uint64_t value) { put(value); }
  void text(std::string_view text) { bytes(std::as_bytes(std::span(text))); }
  void bytes(std::span<const std::byte> more) {
    bytes_.insert(bytes_.end(), more.begin(), more.end());
  }
  void zeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }

  /// Saves growing: the memory is touched once, when it is written.
  void reserve(std::size_t size) { bytes_.reserve(size); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] std::span<const std::byte> view() const noexcept { return bytes_; }
  /// Empties the writer.
  [[nodiscard]] std::vector<std::byte> take() noexcept { return std::exchange(bytes_, {}); }

 private:
  template <class T>
  void put(T value) {
    std::array<std::byte, sizeof value> field;
    std::memcpy(field.data(), &value, sizeof value);
    bytes(field);
  }

  std::vector<std::byte> bytes_;
};

}  // namespace ckptring::plan
