#include "plan/pickle_reader.h"

#include "plan/checked_pickle.h"
#include "plan/dict_table.h"
#include "plan/key_tree.h"
#include "plan/pickle_machine.h"
#include "plan/pickle_opcodes.h"
#include "plan/record_names.h"
#include "plan/tensor_bounds.h"
#include "plan/value_memory.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace ckptring::plan {
namespace {

using Kind = PickleItem::Kind;
using Range = PickleObjects::Range;

bool is_container(Kind kind) {
  return kind == Kind::list || kind == Kind::tuple || kind == Kind::dict;
}

/// The strings that are keys, ranked by hash and text: comparing texts again and again would be
/// slow where long ones are alike.
class KeyTexts {
 public:
  /// Writes down the hashes, by string.
  KeyTexts(const PickleObjects& objects, std::vector<std::uint64_t>& hashes)
      : ranks_(objects.strings.size()), hashes_(hashes) {
    hashes.resize(objects.strings.size());
    struct Key {
      std::uint64_t hash;
      std::uint32_t string;
    };
    std::vector<Key> keys;
    for (const PickleObjects::Container& dict : objects.dicts) {
      bool is_key = true;
      objects.for_each(dict, [&](const PickleItem& item) {
        if (is_key && item.is(Kind::string) && std::exchange(ranks_[item.index], 1) == 0) {
          hashes[item.index] = dict_hash(objects.string(item.index));
          keys.push_back({hashes[item.index], item.index});
        }
        is_key = !is_key;
      });
    }
    std::ranges::sort(keys, [&](const Key& a, const Key& b) {
      if (a.hash != b.hash) return a.hash < b.hash;
      return objects.string(a.string) < objects.string(b.string);
    });
    std::uint32_t rank = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const bool same = i > 0 && keys[i].hash == keys[i - 1].hash &&
                        objects.string(keys[i].string) == objects.string(keys[i - 1].string);
      if (!same) ++rank;
      ranks_[keys[i].string] = rank;
    }
  }

  /// Equal for equal texts, and in their order.
  [[nodiscard]] std::uint32_t rank(std::uint32_t string) const { return ranks_[string]; }
  [[nodiscard]] std::uint64_t hash(std::uint32_t string) const { return hashes_[string]; }

 private:
  std::vector<std::uint32_t> ranks_;  ///< by string
  const std::vector<std::uint64_t>& hashes_;
};

/// A dict's key, to be compared.
struct SortedKey {
  std::uint8_t kind;  ///< ints, strings, others
  std::uint64_t value;
  std::uint32_t entry;

  [[nodiscard]] bool same_key(const SortedKey& other) const noexcept {
    return kind == other.kind && value == other.value;
  }
  /// The order in a dict's `sorted`; of equal keys that of their entries.
  [[nodiscard]] auto place() const noexcept { return std::tuple(kind, value, entry); }
};

/// Finds out whether the tables make sense, and how much they describe. Follows each container
/// once, and keeps where it is on the heap: files may be nested deeper than a thread's stack is.
class Checker {
 public:
  Checker(PickleProgram program, const std::string& path, const FindRecord& find)
      : path_(path),
        find_(find),
        most_visits_((std::uint64_t{16} << 20) + 16 * program.objects.pickle.size()),
        most_memory_(ValueMemory::limit(program.objects.pickle.size())),
        key_texts_(program.objects, checked_.key_hashes) {
    checked_.objects = std::move(program.objects);
    checked_.root = program.root;
  }

  CheckedPickle run() {
    const std::size_t containers =
        objects().lists.size() + objects().tuples.size() + objects().dicts.size();
    visits_.resize(containers);
    heights_.resize(containers, kNew);
    tensor_seen_.resize(objects().tensors.size());
    checked_.sorted_begin.resize(objects().dicts.size());
    checked_.records.resize(objects().storages.size(), kNoRecord);
    if (find_) found_.resize(objects().strings.size(), {kNoRecord, 0});
    Total whole;
    meet(checked_.root, whole);
    while (!open_.empty()) {
      Open& at_hand = open_.back();
      if (at_hand.next < at_hand.range.count) {
        // A dict's keys are no values.
        const std::uint32_t step = at_hand.container.is(Kind::dict) ? 2 : 1;
        const PickleItem item = objects().items[at_hand.range.begin + at_hand.next + step - 1];
        if (!meet(item, at_hand.total)) continue;  // it comes first, and is met again then
        at_hand.next += step;
      } else {
        leave();
      }
    }
    checked_.value_bytes = memory_.bytes();
    return std::move(checked_);
  }

 private:
  /// What a walk that follows every reference would meet.
  struct Total {
    std::uint64_t visits = 1;
    std::uint16_t height = 0;  ///< levels of containers
  };
  struct Open {
    PickleItem container;
    Range range;
    std::uint32_t next = 0;  ///< of its items
    Total total;
  };
  // What became of a container; else its height, which is at least 1.
  static constexpr std::uint16_t kNew = 0;
  static constexpr std::uint16_t kBegun = 0xFFFF;
  static_assert(kMaxDepth < kBegun);

  static constexpr std::size_t kNoRecord = std::numeric_limits<std::size_t>::max();

  [[nodiscard]] PickleObjects& objects() noexcept { return checked_.objects; }
  [[nodiscard]] const PickleObjects& objects() const noexcept { return checked_.objects; }

  [[noreturn]] void damaged(std::string_view what) const {
    std::vector<KeyStep> steps;
    for (const Open& open : open_) {
      if (open.next >= open.range.count) break;  // it is the container itself
      if (!open.container.is(Kind::dict)) {
        steps.push_back(KeyStep::at(open.next));
        continue;
      }
      const PickleItem& key = objects().items[open.range.begin + open.next];
      if (key.is(Kind::integer)) {
        steps.push_back(KeyStep::of_key(objects().integers[key.index]));
      } else {
        steps.push_back(KeyStep::of(key.is(Kind::string) ? objects().string(key.index) : "?"));
      }
    }
    throw Error(ErrorCode::damaged, "read", path_,
                steps.empty() ? fmt::format("record data.pkl: {}", what)
                              : fmt::format("record data.pkl, key {}: {}", key_path(steps), what));
  }
  [[noreturn]] void too_deep() const {
    damaged(fmt::format("containers are nested deeper than {} levels", kMaxDepth));
  }

  /// Containers are numbered through, as in a Document.
  [[nodiscard]] std::size_t number(const PickleItem& container) const {
    switch (container.kind) {
      case Kind::list:
        return container.index;
      case Kind::tuple:
        return objects().lists.size() + container.index;
      default:
        return objects().lists.size() + objects().tuples.size() + container.index;
    }
  }

  /// Adds the item to the total of what holds it. False if it has to be followed first, which has
  /// been begun then.
  bool meet(const PickleItem& item, Total& total) {
    if (is_container(item.kind)) {
      const std::size_t at = number(item);
      if (heights_[at] == kBegun) damaged("a container contains itself");
      if (heights_[at] == kNew) {
        enter(item, at);
        return false;
      }
      if (open_.size() + heights_[at] > kMaxDepth) too_deep();
      total.height = std::max(total.height, heights_[at]);
      add_visits(total, visits_[at]);
      return true;
    }
    if (item.is(Kind::tensor)) {
      check_tensor(item.index);
      // Whoever looks at one reads its shape, and a long one could be met again and again.
      add_visits(total, 1 + objects().tuples[objects().tensors[item.index].sizes].range.count / 8);
    } else if (item.is(Kind::string)) {
      add_visits(total, 1 + objects().strings[item.index].length / 64);
    } else {
      add_visits(total, 1);
    }
    return true;
  }

  void add_visits(Total& total, std::uint64_t visits) const {
    // Both are far below overflow: each was checked when it was made.
    total.visits += visits;
    if (total.visits > most_visits_) {
      damaged("shared containers make it a tree of more values than are allowed");
    }
  }

  void enter(const PickleItem& container, std::size_t number) {
    if (open_.size() >= kMaxDepth) too_deep();
    heights_[number] = kBegun;
    Range range;
    Total total;
    if (container.is(Kind::list)) {
      range = in_one_segment(objects().lists[container.index]);
      memory_.add_list();
      memory_.add_items(range.count);
    } else if (container.is(Kind::tuple)) {
      range = objects().tuples[container.index].range;
      memory_.add_tuple();
      memory_.add_items(range.count);
    } else {
      range = sort(container.index);
      add_dict(range, total);
    }
    check_memory();
    open_.push_back({.container = container, .range = range, .next = 0, .total = total});
  }

  void leave() {
    const Open ended = open_.back();
    const std::size_t at = number(ended.container);
    visits_[at] = ended.total.visits;
    heights_[at] = static_cast<std::uint16_t>(ended.total.height + 1);
    open_.pop_back();
  }

  void check_memory() const {
    if (memory_.bytes() <= most_memory_) return;
    damaged(fmt::format(
        "its values would take more than {} MiB of memory, more than a pickle of {} bytes may",
        most_memory_ >> 20, objects().pickle.size()));
  }

  Range in_one_segment(PickleObjects::Container& container) {
    if (container.first == 0) return {};
    if (container.first != container.last) {
      const auto begin = static_cast<std::uint32_t>(objects().items.size());
      const PickleObjects::Container parts = container;
      objects().for_each(parts, [&](const PickleItem& item) { objects().items.push_back(item); });
      const auto count = static_cast<std::uint32_t>(objects().items.size() - begin);
      objects().segments.push_back({{begin, count}, 0});
      container.first = container.last = static_cast<std::uint32_t>(objects().segments.size());
    }
    return objects().segments[container.first - 1].range;
  }

  [[nodiscard]] SortedKey sorted_key(const PickleItem& key, std::uint32_t entry) const {
    if (key.is(Kind::integer)) {
      // In the order of signed numbers.
      const auto bits = static_cast<std::uint64_t>(objects().integers[key.index]);
      return {0, bits ^ (std::uint64_t{1} << 63), entry};
    }
    if (key.is(Kind::string)) return {1, key_texts_.rank(key.index), entry};
    return {2, static_cast<std::uint64_t>(key.kind) << 32 | key.index, entry};
  }

  /// Leaves each key of a dict once, and writes down their order.
  Range sort(std::uint32_t dict) {
    Range range = in_one_segment(objects().dicts[dict]);
    checked_.sorted_begin[dict] = static_cast<std::uint32_t>(checked_.sorted.size());
    if (range.count == 0) return range;
    std::deque<PickleItem>& items = objects().items;
    std::vector<SortedKey> keys;
    keys.reserve(range.count / 2);
    for (std::uint32_t i = 0; i < range.count; i += 2) {
      keys.push_back(sorted_key(items[range.begin + i], i / 2));
    }
    std::ranges::sort(keys, {}, &SortedKey::place);
    // Of equal keys the first one stays, with the value of the last one.
    const auto dropped = [&](std::size_t at) { return at > 0 && keys[at].same_key(keys[at - 1]); };
    std::vector<bool> drop(keys.size());
    for (std::size_t i = 0; i < keys.size();) {
      const std::size_t first = i;
      while (++i < keys.size() && dropped(i)) drop[keys[i].entry] = true;
      items[range.begin + 2 * keys[first].entry + 1] =
          items[range.begin + 2 * keys[i - 1].entry + 1];
    }
    std::vector<std::uint32_t> place(keys.size());  // of the entries that stay
    std::uint32_t kept = 0;
    for (std::uint32_t entry = 0; entry < drop.size(); ++entry) {
      if (drop[entry]) continue;
      items[range.begin + 2 * kept] = items[range.begin + 2 * entry];
      items[range.begin + 2 * kept + 1] = items[range.begin + 2 * entry + 1];
      place[entry] = kept++;
    }
    for (const SortedKey& key : keys) {
      if (!drop[key.entry]) checked_.sorted.push_back(place[key.entry]);
    }
    range.count = 2 * kept;
    objects().segments[objects().dicts[dict].first - 1].range = range;
    return range;
  }

  void add_dict(Range range, Total& total) {
    std::vector<std::uint64_t> hashes;
    hashes.reserve(range.count / 2);
    for (std::uint32_t i = 0; i < range.count; i += 2) {
      const PickleItem& key = objects().items[range.begin + i];
      if (key.is(Kind::string)) {
        hashes.push_back(key_texts_.hash(key.index));
        // Whoever makes the dict hashes them again, and a long one could be in many dicts.
        add_visits(total, objects().strings[key.index].length / 64);
      } else if (key.is(Kind::integer)) {
        hashes.push_back(dict_hash(objects().integers[key.index]));
      }
    }
    const std::optional<std::uint64_t> slots = dict_slots(hashes);
    if (!slots) {
      damaged(
          fmt::format("its {} keys are such that libtorch's dict would take any memory for "
                      "them",
                      hashes.size()));
    }
    memory_.add_dict(*slots);
  }

  void check_tensor(std::uint32_t index) {
    const PickleObjects::Tensor& tensor = objects().tensors[index];
    if (tensor.has_state || tensor_seen_[index]) return;
    tensor_seen_[index] = true;
    memory_.add_tensor(objects().tuples[tensor.sizes].range.count);
    check_memory();
    if (find_) find_record(tensor.storage);
    read_numbers(tensor.sizes, sizes_);
    read_numbers(tensor.strides, strides_);
    if (const auto problem =
            tensor_problem({.dtype = tensor.dtype,
                            .storage_bytes = objects().storages[tensor.storage].bytes,
                            .offset = tensor.offset,
                            .sizes = sizes_,
                            .strides = strides_,
                            .conj = tensor.conj,
                            .neg = tensor.neg,
                            .requires_grad = tensor.requires_grad})) {
      damaged(*problem);
    }
  }

  void read_numbers(std::uint32_t tuple, std::vector<std::int64_t>& out) const {
    const Range range = objects().tuples[tuple].range;
    out.clear();
    for (std::uint32_t i = 0; i < range.count; ++i) {
      out.push_back(objects().integers[objects().items[range.begin + i].index]);
    }
  }

  void find_record(std::uint32_t index) {
    std::size_t& record = checked_.records[index];
    if (record != kNoRecord) return;
    PickleObjects::Storage& storage = objects().storages[index];
    const std::string_view key = objects().string(storage.key);
    const auto name = [&] {
      return fmt::format("record {}{}", kStoragePrefix, key.substr(0, 100));
    };
    // Asked once for each string: a long one could be met again and again.
    StoredRecord& found = found_[storage.key];
    if (found.index == kNoRecord) {
      const std::optional<StoredRecord> there = find_(key);
      if (!there) damaged(name() + " is missing");
      found = *there;
    }
    // torch counts whole elements; its record may end with a part of one.
    const std::uint64_t unit = storage.dtype ? element_size(*storage.dtype) : 1;
    if (found.size < storage.bytes || found.size - storage.bytes >= unit) {
      damaged(fmt::format("{} has {} bytes, its storage {}", name(), found.size, storage.bytes));
    }
    storage.bytes = found.size;
    record = found.index;
  }

  const std::string& path_;
  const FindRecord& find_;
  const std::uint64_t most_visits_;
  const std::uint64_t most_memory_;
  CheckedPickle checked_;
  const KeyTexts key_texts_;
  ValueMemory memory_;
  std::vector<Open> open_;              ///< from the root to the container at hand
  std::vector<std::uint64_t> visits_;   ///< of containers that were left
  std::vector<std::uint16_t> heights_;  ///< of containers
  std::vector<bool> tensor_seen_;
  std::vector<StoredRecord> found_;  ///< by string
  std::vector<std::int64_t> sizes_;  ///< of the tensor at hand
  std::vector<std::int64_t> strides_;
};

}  // namespace

Document read_pickle(std::vector<std::byte> pickle, const std::string& path,
                     const FindRecord& find) {
  return Document(Checker(run_pickle(std::move(pickle), path), path, find).run());
}

}  // namespace ckptring::plan
