// Numbers addresses in the order in which they come: which storage of a state this one is.
#pragma once

#include "base/make_room.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckptring::plan {

/// A table that grows only, open addressed. A planned state may have tens of thousands of storages,
/// each of which is looked up for each of its tensors: so what is looked at first is small.
class IdentityTable {
 public:
  struct Found {
    std::uint32_t number;
    bool is_new;
  };

  /// The number of `identity`, counted from 0. At most 2^32 - 1 of them.
  Found find_or_add(const void* identity) {
    if (2 * (identities_.size() + 1) > slots_.size()) grow(identities_.size() + 1);
    std::uint32_t& slot = slot_of(identity);
    if (slot != kFree) return {slot - 1, false};
    identities_.push_back(identity);
    slot = static_cast<std::uint32_t>(identities_.size());
    return {slot - 1, true};
  }

  [[nodiscard]] std::size_t size() const { return identities_.size(); }

  /// Makes room for so many more.
  void expect(std::size_t more) {
    base::make_room(identities_, more);
    const std::size_t all = identities_.size() + more;
    if (2 * all > slots_.size()) grow(all);
  }

  /// Keeps its memory.
  void clear() {
    slots_.assign(slots_.size(), kFree);
    identities_.clear();
  }
  /// Of its memory.
  [[nodiscard]] std::size_t bytes() const {
    return slots_.capacity() * sizeof(std::uint32_t) + identities_.capacity() * sizeof(void*);
  }

 private:
  static constexpr std::uint32_t kFree = 0;  ///< others are numbers, and one more
  static constexpr std::size_t kFewest = 64;

  std::uint32_t& slot_of(const void* identity) {
    // Addresses differ in their middle bits: the product spreads those over the upper ones.
    const auto address = reinterpret_cast<std::uintptr_t>(identity);
    std::size_t at = (address * 0x9e3779b97f4a7c15u) >> shift_;
    while (slots_[at] != kFree && identities_[slots_[at] - 1] != identity) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return slots_[at];
  }

  /// For so many in all.
  void grow(std::size_t count) {
    std::size_t size = slots_.empty() ? kFewest : slots_.size();
    while (2 * count > size) size *= 2;
    slots_.assign(size, kFree);
    shift_ = 64 - static_cast<unsigned>(__builtin_ctzll(size));
    for (std::size_t i = 0; i < identities_.size(); ++i) {
      slot_of(identities_[i]) = static_cast<std::uint32_t>(i + 1);
    }
  }

  std::vector<std::uint32_t> slots_;  ///< a power of two; half of them free at least
  std::vector<const void*> identities_;
  unsigned shift_ = 0;
};

}  // namespace ckptring::plan
