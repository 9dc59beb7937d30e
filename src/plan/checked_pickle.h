// A pickle's tables once they are known to make sense: what a Document looks into.
#pragma once

#include "plan/pickle_objects.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckptring::plan {

/// Of what can be reached from the root: lists and dicts lie in one segment each; no key comes
/// twice in a dict; each tensor lies in its storage.
struct CheckedPickle {
  PickleObjects objects;
  PickleItem root;

  /// For each dict where its part of `sorted` begins, which is as long as the dict.
  std::vector<std::uint32_t> sorted_begin;
  /// Entries, counted from the dict's first: ints in their order, then strings by hash and text,
  /// then other keys.
  std::vector<std::uint32_t> sorted;
  /// See dict_table.h; by string, of those that are keys.
  std::vector<std::uint64_t> key_hashes;

  std::vector<std::size_t> records;  ///< by storage
  std::uint64_t value_bytes = 0;

  [[nodiscard]] PickleObjects::Range range_of(const PickleObjects::Container& container) const {
    return container.first == 0 ? PickleObjects::Range{}
                                : objects.segments[container.first - 1].range;
  }
};

}  // namespace ckptring::plan
