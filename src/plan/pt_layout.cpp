#include "plan/pt_layout.h"

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

[[noreturn]] void refuse(std::string cause) {
  throw Error(ErrorCode::unsupported_value, "plan the file", "", std::move(cause));
}

/// Writes the pickle as the state is replayed.
class PtPickle {
 public:
  PtPickle(const Recording& state, std::vector<std::byte> memory)
      : state_(state), pickle_(std::move(memory)), storage_memos_(state.storages().size()) {
    pickle_.reserve(state.tensors() * kTypicalTensor);
  }

  void begin_dict() {
    begin(true);
    pickle_.begin_dict();
    open_dicts_.push_back(key_hashes_.size());
  }
  void end_dict(Recording::Node node) {
    open_.pop_back();
    pickle_.end_dict();
    const std::size_t first = open_dicts_.back();
    open_dicts_.pop_back();
    const auto slots = dict_slots(std::span(key_hashes_).subspan(first));
    if (!slots) {
      state_.refuse_at(node, "the keys of a dict are such that another one could not hold them");
    }
    memory_.add_dict(*slots);
    key_hashes_.resize(first);
  }
  void begin_list() {
    begin(false);
    pickle_.begin_list();
    memory_.add_list();
  }
  void end_list() {
    open_.pop_back();
    pickle_.end_list();
  }
  void begin_tuple() {
    begin(false);
    pickle_.begin_tuple();
    memory_.add_tuple();
  }
  void end_tuple() {
    open_.pop_back();
    pickle_.end_tuple();
  }

  void key(std::string_view text) {
    pickle_.string(text);
    key_hashes_.push_back(dict_hash(text));
  }
  void key(std::int64_t number) {
    pickle_.integer(number);
    key_hashes_.push_back(dict_hash(number));
  }

  void none() {
    count_item();
    pickle_.none();
  }
  void boolean(bool value) {
    count_item();
    pickle_.boolean(value);
  }
  void integer(std::int64_t value) {
    count_item();
    pickle_.integer(value);
  }
  void real(double value) {
    count_item();
    pickle_.real(value);
  }
  void string(std::string_view text) {
    count_item();
    pickle_.string(text);
  }
  void tensor(const TensorView& view);

  /// Ends the pickle.
  [[nodiscard]] std::vector<std::byte> finish();

 private:
  using Storage = Recording::Storage;

  void begin(bool is_dict) {
    count_item();
    open_.push_back(is_dict);
  }
  /// A dict's values lie in its table.
  void count_item() {
    if (!open_.empty() && !open_.back()) memory_.add_items(1);
  }

  /// Whether all views of the storage are written as v3 tensors of an untyped storage: a typed
  /// storage has one dtype, and a whole number of elements.
  static bool is_untyped(const Storage& storage, DType dtype) {
    return std::popcount(storage.dtypes) > 1 || typed_storage_name(dtype).empty() ||
           storage.bytes % element_size(dtype) != 0;
  }

  void storage_reference(std::uint32_t index, DType dtype, bool untyped);

  const Recording& state_;
  PickleWriter pickle_;
  std::vector<bool> open_;                 // containers begun and not ended: whether it is a dict
  ValueMemory memory_;                     // of whoever reads it
  std::vector<std::uint64_t> key_hashes_;  // of the dicts that are open
  std::vector<std::size_t> open_dicts_;    // where each one's begin

  std::vector<Memo> storage_memos_;
  Memo rebuild_v2_ = 0;
  Memo rebuild_v3_ = 0;
  Memo ordered_dict_ = 0;
  Memo untyped_storage_ = 0;
  std::array<Memo, kDTypeCount> typed_storages_{};
  std::array<Memo, kDTypeCount> dtypes_{};
};

void PtPickle::storage_reference(std::uint32_t index, DType dtype, bool untyped) {
  const Storage& storage = state_.storages()[index];
  Memo& memo = storage_memos_[index];
  if (memo != 0) {
    pickle_.recall(memo);
    return;
  }
  pickle_.op(Opcode::mark);
  pickle_.string("storage");
  if (untyped) {
    pickle_.global("torch.storage", "UntypedStorage", untyped_storage_);
  } else {
    pickle_.global("torch", typed_storage_name(dtype),
                   typed_storages_[static_cast<std::size_t>(dtype)]);
  }
  pickle_.unique_string(StorageName(index).key());
  pickle_.string(state_.location(storage));
  pickle_.integer(
      static_cast<std::int64_t>(untyped ? storage.bytes : storage.bytes / element_size(dtype)));
  pickle_.op(Opcode::tuple);
  pickle_.op(Opcode::persistent_id);
  if (storage.views > 1) memo = pickle_.remember();
}

void PtPickle::tensor(const TensorView& view) {
  count_item();
  memory_.add_tensor(view.sizes.size());
  const bool untyped = is_untyped(state_.storages()[view.storage], view.dtype);

  if (untyped) {
    pickle_.global("torch._utils", "_rebuild_tensor_v3", rebuild_v3_);
  } else {
    pickle_.global("torch._utils", "_rebuild_tensor_v2", rebuild_v2_);
  }
  pickle_.op(Opcode::mark);
  storage_reference(view.storage, view.dtype, untyped);
  pickle_.integer(view.offset);
  pickle_.integers(view.sizes);
  pickle_.integers(view.strides);
  // torch refuses to rebuild a v3 tensor that requires a gradient.
  pickle_.boolean(view.requires_grad && !untyped);
  // The backward hooks: a new empty dict each, or tensors would share one.
  pickle_.global("collections", "OrderedDict", ordered_dict_);
  pickle_.op(Opcode::empty_tuple);
  pickle_.op(Opcode::reduce);
  if (untyped) {
    pickle_.global("torch", name(view.dtype), dtypes_[static_cast<std::size_t>(view.dtype)]);
  }
  if (view.conj || view.neg) {
    // No container of the state's, and no deeper one.
    pickle_.op(Opcode::empty_dict);
    pickle_.op(Opcode::mark);
    if (view.conj) {
      pickle_.string("conj");
      pickle_.boolean(true);
    }
    if (view.neg) {
      pickle_.string("neg");
      pickle_.boolean(true);
    }
    pickle_.op(Opcode::setitems);
  }
  pickle_.op(Opcode::tuple);
  pickle_.op(Opcode::reduce);
}

std::vector<std::byte> PtPickle::finish() {
  std::vector<std::byte> pickle = pickle_.finish();
  if (pickle.size() > kMaxPickle) refuse("keys, numbers and strings alone exceed 1 GiB");
  if (memory_.bytes() > ValueMemory::limit(pickle.size())) {
    refuse(
        fmt::format("it has so many containers with so little in them that reading them would "
                    "take {} MiB; at most {} are allowed",
                    memory_.bytes() >> 20, ValueMemory::limit(pickle.size()) >> 20));
  }
  return pickle;
}

}  // namespace

FilePlan lay_out_pt(const Recording& state, const FileFacts& facts,
                    std::vector<std::byte>* scratch) {
  PtPickle writer(state, scratch != nullptr ? std::move(*scratch) : std::vector<std::byte>{});
  state.replay(writer);
  std::vector<std::byte> pickle = writer.finish();
  const std::string info = to_json(facts);
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };

  // What is small comes first: one read finds out what the file is.
  const auto storages = state.storages();
  ZipLayout layout{std::string(kFolder)};
  layout.expect(storages.size(), pickle.size() + info.size());
  layout.add_literal(kVersionRecord, bytes(kArchiveVersion));
  layout.add_literal(kByteOrderRecord, bytes(kByteOrder));
  layout.add_literal(kInfoRecord, bytes(info));
  layout.add_literal(kPickleRecord, pickle);
  for (std::uint32_t i = 0; i < storages.size(); ++i) {
    layout.add_payload(StorageName(i).record(), storages[i].bytes, i);
  }
  if (scratch != nullptr) *scratch = std::move(pickle);
  return std::move(layout).finish();
}

}  // namespace ckptring::plan
