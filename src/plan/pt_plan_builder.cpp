#include "plan/pt_plan_builder.h"

#include "plan/checkpoint_json.h"
#include "plan/dict_table.h"
#include "plan/pickle_writer.h"
#include "plan/record_names.h"
#include "plan/value_memory.h"
#include "plan/zip_layout.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::plan {
namespace {

using Memo = PickleWriter::MemoId;

// What torch's own reader accepts and every torch.save writes.
constexpr std::string_view kArchiveVersion = "3\n";
constexpr std::string_view kByteOrder = "little";

/// Bytes in the pickle, with its key.
constexpr std::size_t kTypicalTensor = 160;

constexpr std::uint64_t bit(DType dtype) noexcept {
  return std::uint64_t{1} << static_cast<unsigned>(dtype);
}
static_assert(kDTypeCount <= 64);

struct Storage {
  std::uint64_t bytes;
  std::uint64_t dtypes = 0;  ///< a bit for each dtype that views it
  std::uint32_t location;    ///< index
  std::uint32_t views = 0;
  Memo memo = 0;
};

/// "data/123" and the "123" in it.
class StorageName {
 public:
  explicit StorageName(std::uint32_t index) {
    kStoragePrefix.copy(text_.data(), kStoragePrefix.size());
    char* const begin = text_.data() + kStoragePrefix.size();
    length_ = static_cast<std::size_t>(
        std::to_chars(begin, text_.data() + text_.size(), index).ptr - text_.data());
  }
  [[nodiscard]] std::string_view record() const { return {text_.data(), length_}; }
  [[nodiscard]] std::string_view key() const { return record().substr(kStoragePrefix.size()); }

 private:
  std::array<char, 24> text_{};
  std::size_t length_;
};

void require(bool holds, const char* what) {
  if (!holds) throw Error(ErrorCode::internal, "plan the file", "", what);
}

[[noreturn]] void refuse(std::string cause) {
  throw Error(ErrorCode::unsupported_value, "plan the file", "", std::move(cause));
}

}  // namespace

struct PtPlanBuilder::State {
  PickleWriter pickle;
  std::vector<Storage> storages;
  std::vector<std::string> locations;
  std::size_t views = 0;                  // of all storages
  std::vector<bool> open;                 // containers begun and not ended: whether it is a dict
  ValueMemory memory;                     // of whoever reads it
  std::vector<std::uint64_t> key_hashes;  // of the dicts that are open
  std::vector<std::size_t> open_dicts;    // where each one's begin
  bool complete = false;                  // the whole state has been written

  Memo rebuild_v2 = 0;
  Memo rebuild_v3 = 0;
  Memo ordered_dict = 0;
  Memo untyped_storage = 0;
  std::array<Memo, kDTypeCount> typed_storages{};
  std::array<Memo, kDTypeCount> dtypes{};

  void value() {
    require(!complete, "a second value after the state");
    if (open.empty()) complete = true;
    count_item();
  }
  void begin(bool is_dict) {
    require(!complete, "a second value after the state");
    if (open.empty()) pickle.reserve(views * kTypicalTensor);
    count_item();
    open.push_back(is_dict);
  }
  void end() {
    require(!open.empty(), "an end without a begin");
    open.pop_back();
    if (open.empty()) complete = true;
  }
  /// A dict's values lie in its table.
  void count_item() {
    if (!open.empty() && !open.back()) memory.add_items(1);
  }

  /// Whether all views of the storage are written as v3 tensors of an untyped storage: a typed
  /// storage has one dtype, and a whole number of elements.
  static bool is_untyped(const Storage& storage, DType dtype) {
    return std::popcount(storage.dtypes) > 1 || typed_storage_name(dtype).empty() ||
           storage.bytes % element_size(dtype) != 0;
  }

  void storage_reference(std::uint32_t index, DType dtype, bool untyped) {
    Storage& storage = storages[index];
    if (storage.memo != 0) {
      pickle.recall(storage.memo);
      return;
    }
    pickle.op(Opcode::mark);
    pickle.string("storage");
    if (untyped) {
      pickle.global("torch.storage", "UntypedStorage", untyped_storage);
    } else {
      pickle.global("torch", typed_storage_name(dtype),
                    typed_storages[static_cast<std::size_t>(dtype)]);
    }
    pickle.unique_string(StorageName(index).key());
    pickle.string(locations[storage.location]);
    pickle.integer(
        static_cast<std::int64_t>(untyped ? storage.bytes : storage.bytes / element_size(dtype)));
    pickle.op(Opcode::tuple);
    pickle.op(Opcode::persistent_id);
    if (storage.views > 1) storage.memo = pickle.remember();
  }
};

PtPlanBuilder::PtPlanBuilder() : state_(std::make_unique<State>()) {}
PtPlanBuilder::~PtPlanBuilder() = default;
PtPlanBuilder::PtPlanBuilder(PtPlanBuilder&&) noexcept = default;
PtPlanBuilder& PtPlanBuilder::operator=(PtPlanBuilder&&) noexcept = default;

std::uint32_t PtPlanBuilder::add_storage(std::uint64_t bytes, std::string_view location) {
  std::vector<std::string>& locations = state_->locations;
  // Devices are few, and neighbours nearly always share one.
  auto found = std::find(locations.rbegin(), locations.rend(), location);
  if (found == locations.rend()) {
    locations.emplace_back(location);
    found = locations.rbegin();
  }
  const auto index = static_cast<std::uint32_t>(locations.rend() - found - 1);
  if (state_->storages.size() >= std::numeric_limits<std::uint32_t>::max()) {
    refuse("more than 4 billion storages");
  }
  state_->storages.push_back({.bytes = bytes, .location = index});
  return static_cast<std::uint32_t>(state_->storages.size() - 1);
}

void PtPlanBuilder::note_view(std::uint32_t storage, DType dtype) {
  require(storage < state_->storages.size(), "a view of an unknown storage");
  state_->storages[storage].dtypes |= bit(dtype);
  ++state_->storages[storage].views;
  ++state_->views;
}

void PtPlanBuilder::begin_dict() {
  state_->begin(true);
  state_->pickle.begin_dict();
  state_->open_dicts.push_back(state_->key_hashes.size());
}
void PtPlanBuilder::end_dict() {
  state_->end();
  state_->pickle.end_dict();
  require(!state_->open_dicts.empty(), "the end of a dict without its begin");
  const std::size_t first = state_->open_dicts.back();
  state_->open_dicts.pop_back();
  const auto slots = dict_slots(std::span(state_->key_hashes).subspan(first));
  if (!slots) refuse("the keys of a dict are such that another one could not hold them");
  state_->memory.add_dict(*slots);
  state_->key_hashes.resize(first);
}
void PtPlanBuilder::begin_list() {
  state_->begin(false);
  state_->pickle.begin_list();
  state_->memory.add_list();
}
void PtPlanBuilder::end_list() {
  state_->end();
  state_->pickle.end_list();
}
void PtPlanBuilder::begin_tuple() {
  state_->begin(false);
  state_->pickle.begin_tuple();
  state_->memory.add_tuple();
}
void PtPlanBuilder::end_tuple() {
  state_->end();
  state_->pickle.end_tuple();
}

void PtPlanBuilder::key(std::string_view text) {
  require(!state_->open.empty(), "a key outside of a dict");
  state_->pickle.string(text);
  state_->key_hashes.push_back(dict_hash(text));
}
void PtPlanBuilder::key(std::int64_t number) {
  require(!state_->open.empty(), "a key outside of a dict");
  state_->pickle.integer(number);
  state_->key_hashes.push_back(dict_hash(number));
}

void PtPlanBuilder::none() {
  state_->value();
  state_->pickle.none();
}
void PtPlanBuilder::boolean(bool value) {
  state_->value();
  state_->pickle.boolean(value);
}
void PtPlanBuilder::integer(std::int64_t value) {
  state_->value();
  state_->pickle.integer(value);
}
void PtPlanBuilder::real(double value) {
  state_->value();
  state_->pickle.real(value);
}
void PtPlanBuilder::string(std::string_view text) {
  state_->value();
  state_->pickle.string(text);
}

void PtPlanBuilder::tensor(const TensorView& view) {
  State& state = *state_;
  PickleWriter& pickle = state.pickle;
  state.value();
  state.memory.add_tensor(view.sizes.size());
  require(view.storage < state.storages.size(), "a tensor of an unknown storage");
  const Storage& storage = state.storages[view.storage];
  require((storage.dtypes & bit(view.dtype)) != 0, "a tensor of a dtype that was not announced");
  const bool untyped = State::is_untyped(storage, view.dtype);

  if (untyped) {
    pickle.global("torch._utils", "_rebuild_tensor_v3", state.rebuild_v3);
  } else {
    pickle.global("torch._utils", "_rebuild_tensor_v2", state.rebuild_v2);
  }
  pickle.op(Opcode::mark);
  state.storage_reference(view.storage, view.dtype, untyped);
  pickle.integer(view.offset);
  pickle.integers(view.sizes);
  pickle.integers(view.strides);
  // torch refuses to rebuild a v3 tensor that requires a gradient.
  pickle.boolean(view.requires_grad && !untyped);
  // The backward hooks: a new empty dict each, or tensors would share one.
  pickle.global("collections", "OrderedDict", state.ordered_dict);
  pickle.op(Opcode::empty_tuple);
  pickle.op(Opcode::reduce);
  if (untyped) {
    pickle.global("torch", name(view.dtype), state.dtypes[static_cast<std::size_t>(view.dtype)]);
  }
  if (view.conj || view.neg) {
    // No container of the state's, and no deeper one.
    pickle.op(Opcode::empty_dict);
    pickle.op(Opcode::mark);
    if (view.conj) {
      pickle.string("conj");
      pickle.boolean(true);
    }
    if (view.neg) {
      pickle.string("neg");
      pickle.boolean(true);
    }
    pickle.op(Opcode::setitems);
  }
  pickle.op(Opcode::tuple);
  pickle.op(Opcode::reduce);
}

FilePlan PtPlanBuilder::finish(const RankInfo& rank, std::optional<std::int64_t> step,
                               const Metadata& metadata) {
  State& state = *state_;
  require(state.complete, "the state is not complete");
  const std::vector<std::byte> pickle = state.pickle.finish();
  if (pickle.size() > kMaxPickle) refuse("keys, numbers and strings alone exceed 1 GiB");
  if (state.memory.bytes() > ValueMemory::limit(pickle.size())) {
    refuse(
        fmt::format("it has so many containers with so little in them that reading them would "
                    "take {} MiB; at most {} are allowed",
                    state.memory.bytes() >> 20, ValueMemory::limit(pickle.size()) >> 20));
  }
  const std::string info = to_json(rank, step, metadata);
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };

  // What is small comes first: one read finds out what the file is.
  ZipLayout layout{std::string(kFolder)};
  layout.expect(state.storages.size(), pickle.size() + info.size());
  layout.add_literal(kVersionRecord, bytes(kArchiveVersion));
  layout.add_literal(kByteOrderRecord, bytes(kByteOrder));
  layout.add_literal(kInfoRecord, bytes(info));
  layout.add_literal(kPickleRecord, pickle);
  for (std::uint32_t i = 0; i < state.storages.size(); ++i) {
    layout.add_payload(StorageName(i).record(), state.storages[i].bytes, i);
  }
  return std::move(layout).finish();
}

}  // namespace ckptring::plan
