#include "plan/dict_table.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <vector>

namespace ckptring::plan {
namespace {

constexpr std::uint64_t kFibonacci = 11400714819323198485U;
constexpr std::uint64_t kFewestLookups = 4;
constexpr std::uint64_t kMostSlotsForEachKey = 64;
constexpr std::uint64_t kFewSlots = 4096;

/// How far behind its slot a key may lie, and one more.
std::uint64_t lookups(unsigned log2) { return std::max<std::uint64_t>(kFewestLookups, log2); }

/// Whether the keys lie in a table of 2^log2 slots.
bool fit(std::span<const std::uint64_t> hashes, unsigned log2, std::vector<std::uint8_t>& wanted) {
  const std::uint64_t most = lookups(log2);
  wanted.assign(std::size_t{1} << log2, 0);
  for (const std::uint64_t hash : hashes) {
    if (++wanted[(hash * kFibonacci) >> (64 - log2)] > most) return false;
  }
  // In the table keys come in the order of the slots that they want; each lies in its own, or
  // behind the one before it.
  std::uint64_t displaced = 0;  // how far the next one is, if it wants the slot at hand
  for (const std::uint8_t count : wanted) {
    displaced += count;
    if (count > 0 && displaced > most) return false;
    if (displaced > 0) --displaced;
  }
  return true;
}

}  // namespace

std::uint64_t dict_hash(std::string_view key) noexcept {
  return std::hash<std::string_view>{}(key);
}
std::uint64_t dict_hash(std::int64_t key) noexcept { return std::hash<std::int64_t>{}(key); }

std::optional<std::uint64_t> dict_slots(std::span<const std::uint64_t> hashes) {
  if (hashes.empty()) return kFewestLookups;
  const std::uint64_t most = kFewSlots + kMostSlotsForEachKey * hashes.size();
  std::vector<std::uint8_t> wanted;
  // It is at most half full.
  for (std::uint64_t slots = std::bit_ceil(2 * hashes.size()); slots <= most; slots *= 2) {
    const auto log2 = static_cast<unsigned>(std::countr_zero(slots));
    if (fit(hashes, log2, wanted)) return slots + lookups(log2);
  }
  return std::nullopt;
}

}  // namespace ckptring::plan
