// Which strings a pickle has already, and under which number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace ckptring::plan {

/// A hash set of strings that lie in the pickle itself: an entry is 16 bytes, and adding one
/// allocates nothing but for the table's growth. (A node and a string each, as the standard maps
/// have them, would be the largest part of what planning a tensor costs.)
class StringMemo {
 public:
  using MemoId = std::uint32_t;  ///< from 1 on

  /// @param pickle what was written so far
  /// @return the string's number, or 0 if it was never added
  [[nodiscard]] MemoId find(std::string_view text, std::span<const std::byte> pickle) const {
    if (entries_.empty()) return 0;
    const std::uint32_t hash = hash_of(text);
    for (std::size_t at = hash & mask();; at = (at + 1) & mask()) {
      const Entry& entry = entries_[at];
      if (entry.memo == 0) return 0;
      if (entry.hash == hash && equals(pickle, entry.offset, text)) return entry.memo;
    }
  }

  /// @param offset in the pickle, of the string's four bytes of length
  void add(std::string_view text, std::uint64_t offset, MemoId memo) {
    if (2 * (count_ + 1) > entries_.size()) grow();
    insert({offset, hash_of(text), memo});
    ++count_;
  }

 private:
  struct Entry {
    std::uint64_t offset;
    std::uint32_t hash;
    MemoId memo;  ///< 0: free
  };

  static std::uint32_t hash_of(std::string_view text) noexcept {
    return static_cast<std::uint32_t>(std::hash<std::string_view>{}(text));
  }
  static bool equals(std::span<const std::byte> pickle, std::uint64_t offset,
                     std::string_view text) noexcept {
    std::uint32_t length = 0;
    std::memcpy(&length, pickle.data() + offset, sizeof length);
    return length == text.size() &&
           std::memcmp(pickle.data() + offset + sizeof length, text.data(), length) == 0;
  }
  [[nodiscard]] std::size_t mask() const noexcept { return entries_.size() - 1; }

  void insert(const Entry& entry) {
    std::size_t at = entry.hash & mask();
    while (entries_[at].memo != 0) at = (at + 1) & mask();
    entries_[at] = entry;
  }
  void grow() {
    std::vector<Entry> old(entries_.empty() ? 64 : 4 * entries_.size());
    old.swap(entries_);
    for (const Entry& entry : old) {
      if (entry.memo != 0) insert(entry);
    }
  }

  std::vector<Entry> entries_;  ///< a power of two, at most half full
  std::size_t count_ = 0;
};

}  // namespace ckptring::plan
