#include "torch/build_value.h"

#include "os/memory_left.h"
#include "plan/value_memory.h"

#include <ckptring/error.h>

#include <ATen/core/jit_type.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <variant>

namespace ckptring::torch_state {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

using c10::IValue;
using Node = KeyTree::Node;

/// As a part of a path.
KeyStep step_of(const plan::Dict::Key& key) {
  return std::visit(Overloaded{
                        [](const plan::String& text) { return KeyStep::of(text.text); },
                        [](std::int64_t number) { return KeyStep::of_key(number); },
                        [](const plan::OtherKey& other) { return KeyStep::of(other.words); },
                    },
                    key);
}

/// As much as nobody has to ask for.
constexpr std::uint64_t kLittle = std::uint64_t{256} << 20;

// What there is here of each value, beside itself: its places in the tables of the builder and of
// the plan.
constexpr std::uint64_t kForObject = 160;
constexpr std::uint64_t kForString = 96;  // with libtorch's object

}  // namespace

ValueBuilder::ValueBuilder(const plan::Document& document, FillPlan& plan)
    : plan_(plan),
      all_bytes_(document.value_bytes() +
                 kForObject * (document.containers() + document.tensors()) +
                 kForString * document.strings()),
      next_check_(kLittle),
      strings_(document.strings()) {}

c10::IValue ValueBuilder::build(const plan::Value& value, Node parent, const KeyStep& step) {
  const std::size_t height = open_.size();
  std::optional<c10::IValue> ready = meet(value, parent, step);
  return finish(height, std::move(ready));
}

void ValueBuilder::fill(const StateDict& dict, const plan::Dict& source, Node node) {
  if (all_bytes_ > kLittle) require_memory(all_bytes_, plan_.keys.path(node));
  next_check_ = std::numeric_limits<std::uint64_t>::max();
  dict.reserve(source.size());
  open_.push_back(
      {.source = {source}, .size = source.size(), .node = node, .made = IValue(dict), .items = {}});
  finish(open_.size() - 1, std::nullopt);
}

/// Until no more than `height` containers are open. `ready` is what was met last, if it was none
/// that had to be opened.
c10::IValue ValueBuilder::finish(std::size_t height, std::optional<c10::IValue> ready) {
  while (open_.size() > height) {
    if (ready) put(*std::exchange(ready, std::nullopt));
    const Open& at_hand = open_.back();
    ready = at_hand.next < at_hand.size ? meet_next() : std::optional(close());
  }
  return *std::move(ready);
}

std::optional<c10::IValue> ValueBuilder::meet_next() {
  Open& at_hand = open_.back();
  const std::size_t index = at_hand.next++;
  const Node node = at_hand.node;
  if (const auto* const dict = std::get_if<plan::Dict>(&at_hand.source.data)) {
    const plan::Dict::Key key = dict->key(index);
    const KeyStep step = step_of(key);
    if (const auto* const other = std::get_if<plan::OtherKey>(&key)) {
      refuse(
          plan_.keys.path(node, step),
          fmt::format("the file has a key there that is neither a string of UTF-8 nor an int: {}",
                      other->words));
    }
    return meet(dict->value(index), node, step);
  }
  const auto* const list = std::get_if<plan::List>(&at_hand.source.data);
  const plan::Sequence& items = list != nullptr ? static_cast<const plan::Sequence&>(*list)
                                                : std::get<plan::Tuple>(at_hand.source.data);
  return meet(items[index], node, KeyStep::at(index));
}

/// The value, or nothing if its container was opened.
std::optional<c10::IValue> ValueBuilder::meet(const plan::Value& value, Node parent,
                                              const KeyStep& step) {
  using Result = std::optional<IValue>;
  // A small file can name one container very often; each is built once.
  const auto once = [&](const auto& container) -> Result {
    const auto found = containers_.find(container.id());
    if (found != containers_.end()) return found->second;
    open(value, container.size(), parent, step);
    return std::nullopt;
  };
  return std::visit(
      Overloaded{
          [](plan::None) -> Result { return IValue(); },
          [](bool flag) -> Result { return IValue(flag); },
          [](std::int64_t number) -> Result { return IValue(number); },
          [](double number) -> Result { return IValue(number); },
          [&](const plan::String& text) -> Result {
            count(0, parent, step);
            return string(text);
          },
          [&](const plan::Tensor& found) -> Result { return tensor(found, parent, step); },
          [&](const plan::List& list) -> Result { return once(list); },
          [&](const plan::Tuple& tuple) -> Result { return once(tuple); },
          [&](const plan::Dict& dict) -> Result { return once(dict); },
          [&](const plan::Unsupported& unsupported) -> Result {
            refuse(plan_.keys.path(parent, step), "the file holds " + unsupported.what + " there");
          },
      },
      value.data);
}

void ValueBuilder::open(const plan::Value& value, std::size_t size, Node parent,
                        const KeyStep& step) {
  Open made{.source = value,
            .size = size,
            .node = plan_.keys.add_borrowed(parent, step),
            .made = {},
            .items = {}};
  plan::ValueMemory memory;
  if (std::holds_alternative<plan::Dict>(value.data)) {
    memory.add_dict(2 * std::bit_ceil(size));
  } else {
    memory.add_list();
    memory.add_items(size);
  }
  count(kForObject + memory.bytes(), parent, step);
  if (std::holds_alternative<plan::Dict>(value.data)) {
    StateDict dict = make_state_dict();
    dict.reserve(size);
    made.made = dict;
  } else if (std::holds_alternative<plan::List>(value.data)) {
    auto list = make_state_list();
    list.reserve(size);
    made.made = list;
  } else {
    made.items.reserve(size);
  }
  open_.push_back(std::move(made));
}

void ValueBuilder::require_memory(std::uint64_t bytes, const std::string& key) const {
  const os::MemoryLeft left = os::memory_left();
  if (bytes <= left.bytes) return;
  throw plan_.error(
      ErrorCode::out_of_memory, key,
      fmt::format("the file's values take about {} MiB beside the tensors' elements, {} MiB are "
                  "left ({})",
                  all_bytes_ >> 20, left.bytes >> 20, left.limited_by));
}

/// A part of the file's values is made, one after the other: how large it will be is known last.
/// What takes `bytes` is made after this, and none of it is there yet.
void ValueBuilder::count(std::uint64_t bytes, Node parent, const KeyStep& step) {
  made_bytes_ += bytes;
  if (made_bytes_ < next_check_) return;
  next_check_ = made_bytes_ + kLittle;
  const std::uint64_t more = all_bytes_ - std::min(all_bytes_, made_bytes_);
  require_memory(bytes + std::min(more, kLittle), plan_.keys.path(parent, step));
}

/// Into the container at hand, as what was met there last.
void ValueBuilder::put(c10::IValue item) {
  Open& at_hand = open_.back();
  if (const auto* const dict = std::get_if<plan::Dict>(&at_hand.source.data)) {
    const plan::Dict::Key key = dict->key(at_hand.next - 1);
    const auto* const text = std::get_if<plan::String>(&key);
    at_hand.made.toGenericDict().insert_or_assign(
        text != nullptr ? string(*text) : IValue(std::get<std::int64_t>(key)), std::move(item));
  } else if (at_hand.made.isList()) {
    at_hand.made.toList().push_back(std::move(item));
  } else {
    at_hand.items.push_back(std::move(item));
  }
}

c10::IValue ValueBuilder::close() {
  Open ended = std::move(open_.back());
  open_.pop_back();
  const auto made_as = [&](const auto& container) {
    containers_.emplace(container.id(), ended.made);
  };
  if (const auto* const tuple = std::get_if<plan::Tuple>(&ended.source.data)) {
    ended.made = c10::ivalue::Tuple::create(std::move(ended.items));
    made_as(*tuple);
  } else if (const auto* const list = std::get_if<plan::List>(&ended.source.data)) {
    made_as(*list);
  } else {
    made_as(std::get<plan::Dict>(ended.source.data));
  }
  plan_.keep(ended.made);
  return std::move(ended.made);
}

c10::IValue ValueBuilder::string(const plan::String& text) {
  IValue& made = strings_[text.id];
  if (made.isNone()) {
    made = IValue(std::string(text.text));
    made_bytes_ += kForString + text.text.size();
  }
  return made;
}

c10::IValue ValueBuilder::tensor(const plan::Tensor& tensor, Node parent, const KeyStep& step) {
  IValue& made = tensors_[tensor.id()];
  if (made.isNone()) {
    plan::ValueMemory memory;
    memory.add_tensor(tensor.dimensions());
    count(kForObject + memory.bytes(), parent, step);
    made = IValue(plan_.make_tensor(tensor, plan_.keys.add_borrowed(parent, step)));
  }
  return made;
}

void ValueBuilder::refuse(const std::string& key, const std::string& cause) const {
  throw plan_.error(ErrorCode::unsupported_value, key, cause);
}

}  // namespace ckptring::torch_state
