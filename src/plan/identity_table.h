// Finds a number by an address: which storage of a state this one is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckptring::plan {

/// A table that grows only, open addressed. A planned state may have tens of thousands of storages,
/// each of which is looked up for each of its tensors.
class IdentityTable {
 public:
  struct Found {
    std::uint32_t number;
    bool is_new;
  };

  /// The number of `identity`, which is `next` if it was not there.
  Found find_or_add(const void* identity, std::uint32_t next) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    Slot& slot = slot_of(identity);
    if (slot.is_used) return {slot.number, false};
    slot = {identity, next, true};
    ++count_;
    return {next, true};
  }

  /// Makes room for so many more.
  void expect(std::size_t more) {
    while (2 * (count_ + more) > slots_.size()) grow();
  }

 private:
  struct Slot {
    const void* identity = nullptr;
    std::uint32_t number = 0;
    bool is_used = false;
  };
  static constexpr std::size_t kFewest = 64;

  Slot& slot_of(const void* identity) {
    // Addresses differ in their middle bits: the product spreads those over the upper ones.
    const auto address = reinterpret_cast<std::uintptr_t>(identity);
    std::size_t at = (address * 0x9e3779b97f4a7c15u) >> shift_;
    while (slots_[at].is_used && slots_[at].identity != identity) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return slots_[at];
  }

  void grow() {
    std::vector<Slot> before(slots_.empty() ? kFewest : 2 * slots_.size());
    before.swap(slots_);
    shift_ = 64 - static_cast<unsigned>(__builtin_ctzll(slots_.size()));
    for (const Slot& slot : before) {
      if (slot.is_used) slot_of(slot.identity) = slot;
    }
  }

  std::vector<Slot> slots_;  ///< a power of two; half of them free at least
  std::size_t count_ = 0;
  unsigned shift_ = 0;
};

}  // namespace ckptring::plan
