// How large libtorch's dict gets. Its hash table (c10::Dict: order_preserving_flat_hash_map) has a
// power of two of slots; a key's slot is the highest bits of its hash times a constant, and keys
// that want the same slot lie behind it one after the other. Where that row is longer than the
// logarithm of the table, the table is doubled, again and again: with sixteen keys that want the
// same slot it has 65,536 of them. Neither an int's hash nor a string's is secret, so a file can
// have such keys.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace ckptring::plan {

/// As libtorch hashes keys.
std::uint64_t dict_hash(std::string_view key) noexcept;
std::uint64_t dict_hash(std::int64_t key) noexcept;

/// Slots of the table for keys of these hashes, all different; with those behind its end, which
/// serve as overflow. Nothing if there were more than 64 for each key, and 4096: no keys that
/// anybody has come near that.
std::optional<std::uint64_t> dict_slots(std::span<const std::uint64_t> hashes);

}  // namespace ckptring::plan
