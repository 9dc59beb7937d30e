#include "plan/recording.h"

#include "base/make_room.h"
#include "plan/pickle_opcodes.h"
#include "plan/tensor_bounds.h"
#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

namespace ckptring::plan {
namespace {

constexpr std::size_t kTypicalShape = 4;  ///< two sizes, two strides

constexpr std::uint64_t bit(DType dtype) noexcept {
  return std::uint64_t{1} << static_cast<unsigned>(dtype);
}
static_assert(kDTypeCount <= 64);

}  // namespace

/// Whoever walks has called in an order, or with numbers, that make no state.
void Recording::require(bool holds, const char* what) const {
  if (!holds) throw Error(ErrorCode::invalid_argument, operation_here(), path_, what);
}

std::uint32_t Recording::storage(const void* identity, std::uint64_t bytes,
                                 std::string_view location, const void* data, int device) {
  if (values_.numbers.size() >= std::numeric_limits<std::uint32_t>::max()) {
    refuse("it is in one of more than 4 billion storages");
  }
  const auto [number, is_new] = values_.numbers.find_or_add(identity);
  if (!is_new) return number;
  // Devices are few, and neighbours nearly always share one.
  auto found = std::find(locations_.rbegin(), locations_.rend(), location);
  if (found == locations_.rend()) {
    locations_.emplace_back(location);
    found = locations_.rbegin();
  }
  const auto index = static_cast<std::uint32_t>(locations_.rend() - found - 1);
  storages_.push_back({.data = data,
                       .bytes = bytes,
                       .location = index,
                       .first = KeyTree::kRoot,
                       .device = static_cast<std::int16_t>(device)});
  return number;
}

void Recording::begin(Step::Kind kind) {
  const Node node = place();
  if (open_.size() >= kMaxDepth) {
    refuse(fmt::format("nested more than {} deep, or it contains itself", kMaxDepth));
  }
  push(kind, 0);
  is_complete_ = false;
  const auto end = static_cast<Step::Kind>(static_cast<int>(kind) + 1);
  open_.push_back({end, node});
}

void Recording::end(Step::Kind kind) {
  require(!open_.empty() && open_.back().end == kind && !has_key_, "an end without its begin");
  values_.steps.push_back({.kind = kind, .integer = open_.back().node});
  open_.pop_back();
  is_complete_ = open_.empty();
}

void Recording::key(std::string_view text) {
  require_key_wanted();
  if (!is_utf8(text)) refuse_key(text, "the key is not valid UTF-8");
  if (text.size() > std::numeric_limits<std::uint32_t>::max()) {
    refuse_key(text, "the key exceeds 4 GiB");
  }
  push_text(Step::Kind::key_text, text);
  has_key_ = true;
}

void Recording::key(std::int64_t number) {
  require_key_wanted();
  values_.steps.push_back({.kind = Step::Kind::key_number, .integer = number});
  has_key_ = true;
}

void Recording::require_key_wanted() const {
  require(!open_.empty() && open_.back().end == Step::Kind::end_dict && !has_key_,
          "a key where none is wanted");
}

void Recording::real(double number) {
  value();
  values_.steps.push_back({.kind = Step::Kind::real, .real = number});
}

void Recording::string(std::string_view text) {
  if (!is_utf8(text)) refuse("the string is not valid UTF-8");
  if (text.size() > std::numeric_limits<std::uint32_t>::max()) refuse("the string exceeds 4 GiB");
  value();
  push_text(Step::Kind::text, text);
}

Recording::Node Recording::tensor(const TensorView& view) {
  require(view.storage < storages_.size(), "a tensor of an unknown storage");
  Storage& storage = storages_[view.storage];
  // As whoever reads it will ask.
  if (const auto problem = tensor_problem({.dtype = view.dtype,
                                           .storage_bytes = storage.bytes,
                                           .offset = view.offset,
                                           .sizes = view.sizes,
                                           .strides = view.strides,
                                           .conj = view.conj,
                                           .neg = view.neg,
                                           .requires_grad = view.requires_grad})) {
    refuse("the tensor could not be read again: " + *problem);
  }
  const Node node = place();
  push(Step::Kind::tensor, static_cast<std::int64_t>(values_.tensors.size()));
  storage.dtypes |= bit(view.dtype);
  if (storage.views++ == 0) storage.first = node;
  values_.shapes.insert(values_.shapes.end(), view.sizes.begin(), view.sizes.end());
  values_.shapes.insert(values_.shapes.end(), view.strides.begin(), view.strides.end());
  values_.tensors.push_back({.offset = view.offset,
                             .storage = view.storage,
                             .dimensions = static_cast<std::uint32_t>(view.sizes.size()),
                             .dtype = view.dtype,
                             .requires_grad = view.requires_grad,
                             .conj = view.conj,
                             .neg = view.neg});
  return node;
}

/// Of the value that comes next.
Recording::Node Recording::place() {
  if (open_.empty()) return KeyTree::kRoot;
  const Node parent = open_.back().node;
  if (has_key_ && values_.steps.back().kind == Step::Kind::key_text) {
    const Step& key = values_.steps.back();
    return keys_.add_kept(parent, static_cast<std::size_t>(key.text), key.length);
  }
  return keys_.add(parent, step());
}

void Recording::refuse(std::string cause) const {
  throw Error(ErrorCode::unsupported_value, operation_here(), path_, std::move(cause));
}

void Recording::refuse_open(std::string cause) const {
  refuse_at(open_.empty() ? KeyTree::kRoot : open_.back().node, std::move(cause));
}

void Recording::refuse_at(Node node, std::string cause) const {
  throw Error(ErrorCode::unsupported_value, operation_on(keys_.path(node)), path_,
              std::move(cause));
}

std::string Recording::operation_on(const std::string& key) const {
  return fmt::format("{} key {}{}", operation_, key, path_.empty() ? "" : " to");
}

void Recording::expect(std::size_t items) {
  base::make_room(values_.steps, 2 * items + 2);
  base::make_room(values_.tensors, items);
  base::make_room(values_.shapes, kTypicalShape * items);
  base::make_room(storages_, items);
  values_.numbers.expect(items);
  keys_.expect(items);
}

void Recording::declare_volatile(std::uint32_t storage) {
  require(storage < storages_.size(), "an unknown storage");
  storages_[storage].is_volatile = true;
}

Recording::Values Recording::forget_values() {
  is_complete_ = false;
  values_.clear();
  return std::exchange(values_, {});
}

void Recording::push(Step::Kind kind, std::int64_t number) {
  value();
  values_.steps.push_back({.kind = kind, .integer = number});
}

void Recording::push_text(Step::Kind kind, std::string_view text) {
  values_.steps.push_back(
      {.kind = kind, .length = static_cast<std::uint32_t>(text.size()), .text = keys_.keep(text)});
}

/// A value is recorded now.
void Recording::value() {
  require(!is_complete_, "a second value after the state");
  if (open_.empty()) {
    is_complete_ = true;
  } else if (open_.back().end == Step::Kind::end_dict) {
    require(has_key_, "a value of a dict without its key");
    has_key_ = false;
  } else {
    ++open_.back().items;
  }
}

/// From the container that is open to the value that comes next.
KeyStep Recording::step() const {
  if (!has_key_) return KeyStep::at(open_.back().items);
  const Step& key = values_.steps.back();
  return key.kind == Step::Kind::key_text ? KeyStep::of(text_of(key))
                                          : KeyStep::of_key(key.integer);
}

std::string Recording::path_here() const {
  return open_.empty() ? keys_.path(KeyTree::kRoot) : keys_.path(open_.back().node, step());
}

void Recording::refuse_key(std::string_view text, std::string cause) const {
  throw Error(ErrorCode::unsupported_value,
              operation_on(keys_.path(open_.back().node, KeyStep::of(text))), path_,
              std::move(cause));
}

TensorView Recording::view_of(const Tensor& tensor, std::size_t first_size) const {
  const std::span shape = std::span(values_.shapes).subspan(first_size);
  return {
      .dtype = tensor.dtype,
      .storage = tensor.storage,
      .offset = tensor.offset,
      .sizes = shape.first(tensor.dimensions),
      .strides = shape.subspan(tensor.dimensions, tensor.dimensions),
      .requires_grad = tensor.requires_grad,
      .conj = tensor.conj,
      .neg = tensor.neg,
  };
}

void Recording::require_complete() const { require(is_complete_, "the state is not complete"); }

}  // namespace ckptring::plan

namespace ckptring {

StateRecorder::StateRecorder(std::string operation, std::string path)
    : recording_(std::make_unique<plan::Recording>(std::move(operation), std::move(path))) {}
StateRecorder::~StateRecorder() = default;

std::uint32_t StateRecorder::storage(const StorageView& view) {
  if (view.device < kHost || view.device > std::numeric_limits<std::int16_t>::max()) {
    recording_->refuse(fmt::format("there is no device {}", view.device));
  }
  const void* identity = view.identity != nullptr ? view.identity : view.data;
  if (identity == nullptr) {
    if (view.bytes > 0) recording_->refuse("its memory is said to lie nowhere");
    // One of its own: no memory lies at so small an address.
    identity = reinterpret_cast<const void*>(recording_->storages().size() + 1);
  }
  if (view.device == kHost) {
    return recording_->storage(identity, view.bytes, "cpu", view.data, view.device);
  }
  constexpr std::string_view kPrefix = "cuda:";
  std::array<char, 24> text{};
  kPrefix.copy(text.data(), kPrefix.size());
  const char* const end =
      std::to_chars(text.data() + kPrefix.size(), text.data() + text.size(), view.device).ptr;
  return recording_->storage(identity, view.bytes,
                             {text.data(), static_cast<std::size_t>(end - text.data())}, view.data,
                             view.device);
}
void StateRecorder::declare_volatile(std::uint32_t storage) {
  recording_->declare_volatile(storage);
}

void StateRecorder::begin_dict() { recording_->begin_dict(); }
void StateRecorder::end_dict() { recording_->end_dict(); }
void StateRecorder::begin_list() { recording_->begin_list(); }
void StateRecorder::end_list() { recording_->end_list(); }
void StateRecorder::begin_tuple() { recording_->begin_tuple(); }
void StateRecorder::end_tuple() { recording_->end_tuple(); }
void StateRecorder::key(std::string_view text) { recording_->key(text); }
void StateRecorder::key(std::int64_t number) { recording_->key(number); }
void StateRecorder::none() { recording_->none(); }
void StateRecorder::boolean(bool value) { recording_->boolean(value); }
void StateRecorder::integer(std::int64_t value) { recording_->integer(value); }
void StateRecorder::real(double value) { recording_->real(value); }
void StateRecorder::string(std::string_view text) { recording_->string(text); }
StateRecorder::Node StateRecorder::tensor(const TensorView& view) {
  return recording_->tensor(view);
}
void StateRecorder::expect(std::size_t items) { recording_->expect(items); }

std::string StateRecorder::path_of(Node node) const { return recording_->path_of(node); }
std::string StateRecorder::path_of_storage(std::uint32_t storage) const {
  recording_->require(storage < recording_->storages().size(), "an unknown storage");
  return recording_->path_of(recording_->storages()[storage].first);
}
void StateRecorder::refuse(std::string cause) const { recording_->refuse(std::move(cause)); }
void StateRecorder::refuse_open(std::string cause) const {
  recording_->refuse_open(std::move(cause));
}

void StateRecorder::keep_alive(std::shared_ptr<void> owner) {
  recording_->kept_alive.push_back(std::move(owner));
}
void StateRecorder::produced_on(ProducedOn streams) {
  recording_->produced_on = std::move(streams);
}
void StateRecorder::check_unchanged(CheckUnchanged check) {
  recording_->check_unchanged = std::move(check);
}

}  // namespace ckptring
