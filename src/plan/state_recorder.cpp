#include "plan/state_recorder.h"

#include "base/make_room.h"
#include "plan/pickle_opcodes.h"
#include "plan/tensor_bounds.h"
#include "plan/utf8.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace ckptring::plan {
namespace {

constexpr std::size_t kTypicalShape = 4;  ///< two sizes, two strides

constexpr std::uint64_t bit(DType dtype) noexcept {
  return std::uint64_t{1} << static_cast<unsigned>(dtype);
}
static_assert(kDTypeCount <= 64);

void require(bool holds, const char* what) {
  if (!holds) throw Error(ErrorCode::internal, "record the state", "", what);
}

}  // namespace

StateRecorder::StateRecorder(std::string operation, std::string path)
    : operation_(std::move(operation)), path_(std::move(path)) {}

std::uint32_t StateRecorder::storage(const void* identity, std::uint64_t bytes,
                                     std::string_view location) {
  const auto [number, is_new] =
      numbers_.find_or_add(identity, static_cast<std::uint32_t>(storages_.size()));
  if (!is_new) return number;
  if (storages_.size() >= std::numeric_limits<std::uint32_t>::max()) {
    refuse("it is in one of more than 4 billion storages");
  }
  // Devices are few, and neighbours nearly always share one.
  auto found = std::find(locations_.rbegin(), locations_.rend(), location);
  if (found == locations_.rend()) {
    locations_.emplace_back(location);
    found = locations_.rbegin();
  }
  const auto index = static_cast<std::uint32_t>(locations_.rend() - found - 1);
  storages_.push_back({.bytes = bytes, .location = index, .first = place()});
  return number;
}

void StateRecorder::begin(Step::Kind kind) {
  const Node node = place();
  if (open_.size() >= kMaxDepth) {
    refuse(fmt::format("nested more than {} deep, or it contains itself", kMaxDepth));
  }
  push(kind, 0);
  is_complete_ = false;
  const auto end = static_cast<Step::Kind>(static_cast<int>(kind) + 1);
  open_.push_back({end, node});
}

void StateRecorder::end(Step::Kind kind) {
  require(!open_.empty() && open_.back().end == kind && !has_key_, "an end without its begin");
  steps_.push_back({.kind = kind, .integer = open_.back().node});
  open_.pop_back();
  is_complete_ = open_.empty();
}

void StateRecorder::key(std::string_view text) {
  require_key_wanted();
  if (!is_utf8(text)) refuse_key(text, "the key is not valid UTF-8");
  if (text.size() > std::numeric_limits<std::uint32_t>::max()) {
    refuse_key(text, "the key exceeds 4 GiB");
  }
  push_text(Step::Kind::key_text, text);
  has_key_ = true;
}

void StateRecorder::key(std::int64_t number) {
  require_key_wanted();
  steps_.push_back({.kind = Step::Kind::key_number, .integer = number});
  has_key_ = true;
}

void StateRecorder::require_key_wanted() const {
  require(!open_.empty() && open_.back().end == Step::Kind::end_dict && !has_key_,
          "a key where none is wanted");
}

void StateRecorder::real(double number) {
  value();
  steps_.push_back({.kind = Step::Kind::real, .real = number});
}

void StateRecorder::string(std::string_view text) {
  if (!is_utf8(text)) refuse("the string is not valid UTF-8");
  if (text.size() > std::numeric_limits<std::uint32_t>::max()) refuse("the string exceeds 4 GiB");
  value();
  push_text(Step::Kind::text, text);
}

StateRecorder::Node StateRecorder::tensor(const TensorView& view) {
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
  push(Step::Kind::tensor, static_cast<std::int64_t>(tensors_.size()));
  storage.dtypes |= bit(view.dtype);
  ++storage.views;
  shapes_.insert(shapes_.end(), view.sizes.begin(), view.sizes.end());
  shapes_.insert(shapes_.end(), view.strides.begin(), view.strides.end());
  tensors_.push_back({.offset = view.offset,
                      .storage = view.storage,
                      .dimensions = static_cast<std::uint32_t>(view.sizes.size()),
                      .dtype = view.dtype,
                      .requires_grad = view.requires_grad,
                      .conj = view.conj,
                      .neg = view.neg});
  return node;
}

StateRecorder::Node StateRecorder::place() {
  if (!is_placed_) {
    placed_ = add_place();
    is_placed_ = true;
  }
  return placed_;
}

StateRecorder::Node StateRecorder::add_place() {
  if (open_.empty()) return KeyTree::kRoot;
  const Node parent = open_.back().node;
  if (has_key_ && steps_.back().kind == Step::Kind::key_text) {
    const Step& key = steps_.back();
    return keys_.add_kept(parent, static_cast<std::size_t>(key.text), key.length);
  }
  return keys_.add(parent, step());
}

void StateRecorder::refuse(std::string cause) const {
  throw Error(ErrorCode::unsupported_value, operation_here(), path_, std::move(cause));
}

void StateRecorder::refuse_open(std::string cause) const {
  refuse_at(open_.empty() ? KeyTree::kRoot : open_.back().node, std::move(cause));
}

void StateRecorder::refuse_at(Node node, std::string cause) const {
  throw Error(ErrorCode::unsupported_value, operation_on(keys_.path(node)), path_,
              std::move(cause));
}

std::string StateRecorder::operation_on(const std::string& key) const {
  return fmt::format("{} key {}{}", operation_, key, path_.empty() ? "" : " to");
}

void StateRecorder::expect(std::size_t items) {
  base::make_room(steps_, 2 * items + 2);
  base::make_room(tensors_, items);
  base::make_room(shapes_, kTypicalShape * items);
  base::make_room(storages_, items);
  numbers_.expect(items);
  keys_.expect(items);
}

void StateRecorder::forget_values() {
  steps_ = {};
  tensors_ = {};
  shapes_ = {};
  numbers_ = {};
  is_complete_ = false;
}

void StateRecorder::push(Step::Kind kind, std::int64_t number) {
  value();
  steps_.push_back({.kind = kind, .integer = number});
}

void StateRecorder::push_text(Step::Kind kind, std::string_view text) {
  steps_.push_back(
      {.kind = kind, .length = static_cast<std::uint32_t>(text.size()), .text = keys_.keep(text)});
}

/// A value is recorded now.
void StateRecorder::value() {
  require(!is_complete_, "a second value after the state");
  is_placed_ = false;
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
KeyStep StateRecorder::step() const {
  if (!has_key_) return KeyStep::at(open_.back().items);
  const Step& key = steps_.back();
  return key.kind == Step::Kind::key_text ? KeyStep::of(text_of(key))
                                          : KeyStep::of_key(key.integer);
}

std::string StateRecorder::path_here() const {
  return open_.empty() ? keys_.path(KeyTree::kRoot) : keys_.path(open_.back().node, step());
}

void StateRecorder::refuse_key(std::string_view text, std::string cause) const {
  throw Error(ErrorCode::unsupported_value,
              operation_on(keys_.path(open_.back().node, KeyStep::of(text))), path_,
              std::move(cause));
}

TensorView StateRecorder::view_of(const Tensor& tensor, std::size_t first_size) const {
  const std::span shape = std::span(shapes_).subspan(first_size);
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

void StateRecorder::require_complete() const { require(is_complete_, "the state is not complete"); }

}  // namespace ckptring::plan
