#include "plan/value.h"

#include "plan/checked_pickle.h"
#include "plan/dict_table.h"

#include <fmt/format.h>

#include <compare>

namespace ckptring::plan {
namespace {

using Kind = PickleItem::Kind;
using Range = PickleObjects::Range;

template <class Made>
Made container(const CheckedPickle& pickle, std::uint32_t index, std::size_t before, Range range) {
  return Made(pickle, index, static_cast<std::uint32_t>(before + index), range.begin, range.count);
}

Value value_of(const CheckedPickle& pickle, const PickleItem& item) {
  const PickleObjects& objects = pickle.objects;
  const std::uint32_t index = item.index;
  switch (item.kind) {
    case Kind::none:
      return {None{}};
    case Kind::boolean:
      return {item.boolean()};
    case Kind::integer:
      return {objects.integers[index]};
    case Kind::real:
      return {objects.reals[index]};
    case Kind::string:
      return {String{objects.string(index), index}};
    case Kind::tensor:
      if (objects.tensors[index].has_state) return {Unsupported{"a tensor with Python state"}};
      return {Tensor(pickle, index)};
    // Containers are numbered through: lists, tuples, dicts.
    case Kind::list:
      return {container<List>(pickle, index, 0, pickle.range_of(objects.lists[index]))};
    case Kind::tuple:
      return {container<Tuple>(pickle, index, objects.lists.size(), objects.tuples[index].range)};
    case Kind::dict:
      return {container<Dict>(pickle, index, objects.lists.size() + objects.tuples.size(),
                              pickle.range_of(objects.dicts[index]))};
    default:
      return {Unsupported{objects.describe(item)}};
  }
}

std::string in_words(const PickleObjects& objects, const PickleItem& key) {
  switch (key.kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return key.boolean() ? "True" : "False";
    case Kind::real:
      return fmt::format("{}", objects.reals[key.index]);
    default:
      return objects.describe(key);
  }
}

std::vector<std::int64_t> numbers(const PickleObjects& objects, std::uint32_t tuple) {
  const Range range = objects.tuples[tuple].range;
  std::vector<std::int64_t> out;
  out.reserve(range.count);
  for (std::uint32_t i = 0; i < range.count; ++i) {
    out.push_back(objects.integers[objects.items[range.begin + i].index]);
  }
  return out;
}

const PickleObjects::Tensor& tensor_at(const CheckedPickle& pickle, std::uint32_t index) {
  return pickle.objects.tensors[index];
}
const PickleObjects::Storage& storage_of(const CheckedPickle& pickle, std::uint32_t index) {
  return pickle.objects.storages[tensor_at(pickle, index).storage];
}

}  // namespace

DType Tensor::dtype() const { return tensor_at(*pickle_, index_).dtype; }
std::string_view Tensor::storage_key() const {
  return pickle_->objects.string(storage_of(*pickle_, index_).key);
}
std::size_t Tensor::record() const { return pickle_->records[tensor_at(*pickle_, index_).storage]; }
std::uint64_t Tensor::storage_bytes() const { return storage_of(*pickle_, index_).bytes; }
std::string_view Tensor::location() const {
  return pickle_->objects.string(storage_of(*pickle_, index_).location);
}
std::int64_t Tensor::offset() const { return tensor_at(*pickle_, index_).offset; }
std::size_t Tensor::dimensions() const {
  return pickle_->objects.tuples[tensor_at(*pickle_, index_).sizes].range.count;
}
std::vector<std::int64_t> Tensor::sizes() const {
  return numbers(pickle_->objects, tensor_at(*pickle_, index_).sizes);
}
std::vector<std::int64_t> Tensor::strides() const {
  return numbers(pickle_->objects, tensor_at(*pickle_, index_).strides);
}
bool Tensor::requires_grad() const { return tensor_at(*pickle_, index_).requires_grad; }
bool Tensor::conj() const { return tensor_at(*pickle_, index_).conj; }
bool Tensor::neg() const { return tensor_at(*pickle_, index_).neg; }

Value Sequence::operator[](std::size_t index) const {
  return value_of(*pickle_, pickle_->objects.items[begin_ + index]);
}

Dict::Key Dict::key(std::size_t index) const {
  const PickleObjects& objects = pickle_->objects;
  const PickleItem& key = objects.items[begin_ + 2 * index];
  if (key.is(Kind::string)) return String{objects.string(key.index), key.index};
  if (key.is(Kind::integer)) return objects.integers[key.index];
  return OtherKey{in_words(objects, key)};
}
Value Dict::value(std::size_t index) const {
  return value_of(*pickle_, pickle_->objects.items[begin_ + 2 * index + 1]);
}

/// `order(key)` tells where the key lies, seen from what is looked for.
template <class Order>
std::optional<Value> Dict::search(Order&& order) const {
  const PickleObjects& objects = pickle_->objects;
  const std::uint32_t first = pickle_->sorted_begin[index_];
  std::size_t begin = 0;
  std::size_t end = size();
  while (begin < end) {
    const std::size_t middle = begin + (end - begin) / 2;
    const std::size_t entry = pickle_->sorted[first + middle];
    const std::strong_ordering lies = order(objects.items[begin_ + 2 * entry]);
    if (lies == std::strong_ordering::equal) return value(entry);
    if (lies == std::strong_ordering::less) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return std::nullopt;
}

std::optional<Value> Dict::find(std::string_view text) const {
  const std::uint64_t hash = dict_hash(text);
  return search([&](const PickleItem& key) {
    if (key.is(Kind::string)) {
      const std::strong_ordering by_hash = pickle_->key_hashes[key.index] <=> hash;
      if (by_hash != std::strong_ordering::equal) return by_hash;
      return pickle_->objects.string(key.index) <=> text;
    }
    return key.is(Kind::integer) ? std::strong_ordering::less : std::strong_ordering::greater;
  });
}
std::optional<Value> Dict::find(std::int64_t number) const {
  return search([&](const PickleItem& key) {
    return key.is(Kind::integer) ? pickle_->objects.integers[key.index] <=> number
                                 : std::strong_ordering::greater;
  });
}

Document::Document(CheckedPickle pickle)
    : pickle_(std::make_unique<const CheckedPickle>(std::move(pickle))) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;

Value Document::root() const { return value_of(*pickle_, pickle_->root); }
std::size_t Document::strings() const noexcept { return pickle_->objects.strings.size(); }
std::size_t Document::containers() const noexcept {
  const PickleObjects& objects = pickle_->objects;
  return objects.lists.size() + objects.tuples.size() + objects.dicts.size();
}
std::size_t Document::tensors() const noexcept { return pickle_->objects.tensors.size(); }
std::uint64_t Document::value_bytes() const noexcept { return pickle_->value_bytes; }

}  // namespace ckptring::plan
