#include "torch/match_state.h"

#include "plan/tensor_bounds.h"
#include "torch/bare_tensor.h"
#include "torch/build_value.h"
#include "torch/dtype_map.h"
#include "torch/same_value.h"

#include <ckptring/error.h>

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>

#include <fmt/format.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring::torch_state {
namespace {

using c10::IValue;
using Node = KeyTree::Node;

/// What the file holds at one place, in words.
struct InWords {
  std::string operator()(plan::None) const { return "None"; }
  std::string operator()(bool) const { return "a bool"; }
  std::string operator()(std::int64_t) const { return "an int"; }
  std::string operator()(double) const { return "a float"; }
  std::string operator()(const plan::String&) const { return "a string"; }
  std::string operator()(const plan::Tensor&) const { return "a tensor"; }
  std::string operator()(const plan::List&) const { return "a list"; }
  std::string operator()(const plan::Tuple&) const { return "a tuple"; }
  std::string operator()(const plan::Dict&) const { return "a dict"; }
  std::string operator()(const plan::Unsupported& value) const { return value.what; }
};

std::string in_words(const plan::Value& value) { return std::visit(InWords{}, value.data); }

/// Whether a container whose elements have `type` may hold the file's value.
bool may_hold(const c10::TypePtr& type, const plan::Value& value) {
  switch (type->kind()) {
    case c10::TypeKind::AnyType:
      return true;
    case c10::TypeKind::IntType:
      return std::holds_alternative<std::int64_t>(value.data);
    case c10::TypeKind::FloatType:
      return std::holds_alternative<double>(value.data);
    case c10::TypeKind::BoolType:
      return std::holds_alternative<bool>(value.data);
    case c10::TypeKind::StringType:
      return std::holds_alternative<plan::String>(value.data);
    case c10::TypeKind::TensorType:
      return std::holds_alternative<plan::Tensor>(value.data);
    case c10::TypeKind::OptionalType:
      return std::holds_alternative<plan::None>(value.data) ||
             may_hold(type->expectRef<c10::OptionalType>().getElementType(), value);
    // New containers are made without an element type, so they fit nowhere else.
    default:
      return false;
  }
}

bool is_none(const IValue& value) {
  return value.isNone() || (value.isTensor() && !value.toTensor().defined());
}

/// Lists and dicts are the same object where this is equal.
std::size_t identity(const IValue& container) { return IValue::HashIdentityIValue{}(container); }

const plan::Sequence& sequence(const plan::Value& value) {
  const auto* const list = std::get_if<plan::List>(&value.data);
  return list != nullptr ? static_cast<const plan::Sequence&>(*list)
                         : std::get<plan::Tuple>(value.data);
}

std::uint32_t id_of(const plan::Value& container) {
  const auto* const dict = std::get_if<plan::Dict>(&container.data);
  return dict != nullptr ? dict->id() : sequence(container).id();
}

/// What a container of the file has at one place.
std::optional<plan::Value> value_at(const plan::Value& container, const KeyStep& step) {
  if (const auto* const dict = std::get_if<plan::Dict>(&container.data)) {
    return step.kind == KeyStep::Kind::text ? dict->find(step.text) : dict->find(step.number);
  }
  const plan::Sequence& items = sequence(container);
  const auto index = static_cast<std::size_t>(step.number);
  return index < items.size() ? std::optional(items[index]) : std::nullopt;
}

class Matcher {
 public:
  Matcher(const plan::Document& document, FillPlan& plan) : plan_(plan), builder_(document, plan) {}

  void run(const StateDict& state, const plan::Dict& file) {
    open(IValue(state), {file}, KeyTree::kRoot, {});
    while (!open_.empty()) {
      if (open_.back().next < open_.back().size) {
        meet_next();
      } else {
        close();
      }
    }
  }

 private:
  /// A container of the file, and under which key of the state it was asked for.
  struct Matched {
    plan::Value file;
    Node node;
  };
  /// A container of the state that is being compared.
  struct Open {
    IValue mine;
    plan::Value file;
    Node node;
    /// What the same container was compared with under other keys: it is changed once.
    std::vector<Matched> before;
    std::size_t size;
    std::size_t next = 0;                      ///< place at hand
    std::optional<StateDict::iterator> entry;  ///< at it, in a dict
    std::vector<IValue> replaced;              ///< a tuple's items, if one of them changes
  };
  /// One place in a container of the state, and what the file has for it.
  struct Place {
    IValue mine;
    KeyStep step;
    plan::Value file;
    Node parent;
    bool may_be;                   ///< the place can hold the file's value, if it holds None so far
    std::optional<Matched> first;  ///< what the place gets, or has, under another key
  };

  void meet_next() {
    Open& at_hand = open_.back();
    if (at_hand.entry) {
      meet_entry(at_hand);
    } else if (at_hand.mine.isTuple()) {
      const IValue mine = at_hand.mine.toTupleRef().elements()[at_hand.next];
      meet_item(at_hand, mine, true);
    } else {
      meet_list_item(at_hand);
    }
  }

  void meet_entry(Open& at_hand) {
    const IValue key = (*at_hand.entry)->key();
    KeyStep step = KeyStep::of_key(0);
    if (key.isString()) {
      step = KeyStep::of(key.toStringRef());  // the dict's own, which lives on
    } else if (key.isInt()) {
      step = KeyStep::of_key(key.toInt());
    } else {
      throw plan_.error(ErrorCode::unsupported_value, plan_.keys.path(at_hand.node),
                        fmt::format("a key of the state's dict is a {}; keys are strings or ints",
                                    key.tagKind()));
    }
    std::optional<plan::Value> found = value_at(at_hand.file, step);
    if (!found) {
      plan_.missing_keys.push_back(plan_.keys.path(at_hand.node, step));
      take(std::nullopt);
      return;
    }
    const bool may_be = may_hold(at_hand.mine.toGenericDict().valueType(), *found);
    meet({(*at_hand.entry)->value(), step, *found, at_hand.node, may_be, first_at(at_hand, step)});
  }

  void meet_list_item(Open& at_hand) {
    const c10::ArrayRef<IValue> items = at_hand.mine.toListRef();
    const c10::TypePtr type = at_hand.mine.toList().elementType();
    const plan::Value value = sequence(at_hand.file)[at_hand.next];
    const bool may_be = may_hold(type, value);
    if (at_hand.next < items.size()) return meet_item(at_hand, items[at_hand.next], may_be);
    if (!may_be) {
      throw plan_.error(ErrorCode::mismatch,
                        plan_.keys.path(at_hand.node, KeyStep::at(at_hand.next)),
                        fmt::format("the state's list holds {} only, the file has {} there",
                                    type->str(), in_words(value)));
    }
    meet_item(at_hand, IValue(), true);
  }

  void meet_item(const Open& at_hand, const IValue& mine, bool may_be) {
    const KeyStep step = KeyStep::at(at_hand.next);
    meet({mine, step, sequence(at_hand.file)[at_hand.next], at_hand.node, may_be,
          first_at(at_hand, step)});
  }

  static std::optional<Matched> first_at(const Open& at_hand, const KeyStep& step) {
    for (const Matched& matched : at_hand.before) {
      if (auto value = value_at(matched.file, step)) return Matched{*value, matched.node};
    }
    return std::nullopt;
  }

  void meet(const Place& place) {
    const IValue& mine = place.mine;
    if (mine.isGenericDict()) {
      (void)expect<plan::Dict>(place);
      open_shared(place, 0);
    } else if (mine.isList()) {
      open_shared(place, expect<plan::List>(place).size());
    } else if (mine.isTuple()) {
      open_tuple(place, expect<plan::Tuple>(place));
    } else {
      take(leaf(place));
    }
  }

  /// What has to stand in the place, if anything.
  std::optional<IValue> leaf(const Place& place) {
    const IValue& mine = place.mine;
    if (is_none(mine)) {
      if (!std::holds_alternative<plan::None>(place.file.data) && !place.may_be) refuse_kind(place);
      if (place.first) {
        require_same(place);
        return std::nullopt;
      }
      if (std::holds_alternative<plan::None>(place.file.data) && is_there(place)) {
        return std::nullopt;
      }
      return builder_.build(place.file, place.parent, place.step);
    }
    if (mine.isTensor()) {
      tensor(place, expect<plan::Tensor>(place));
      return std::nullopt;
    }
    std::optional<IValue> changed = scalar(place);
    if (!place.first) return changed;
    require_same(place);
    return std::nullopt;
  }

  std::optional<IValue> scalar(const Place& place) const {
    const IValue& mine = place.mine;
    const auto unless = [](bool same, auto&& found) {
      return same ? std::nullopt : std::optional<IValue>(found);
    };
    if (mine.isBool()) {
      const bool found = expect<bool>(place);
      return unless(found == mine.toBool(), found);
    }
    if (mine.isInt()) {
      const auto found = expect<std::int64_t>(place);
      return unless(found == mine.toInt(), found);
    }
    if (mine.isDouble()) {
      const auto found = expect<double>(place);
      // As bits: -0.0 is not 0.0, and a NaN is itself.
      return unless(
          std::bit_cast<std::uint64_t>(found) == std::bit_cast<std::uint64_t>(mine.toDouble()),
          found);
    }
    if (mine.isString()) {
      const plan::String& found = expect<plan::String>(place);
      return unless(found.text == mine.toStringRef(), std::string(found.text));
    }
    throw plan_.error(ErrorCode::unsupported_value, path(place),
                      fmt::format("the state holds a value of kind {} there", mine.tagKind()));
  }

  /// Whether the place is one that the state has, not one behind the end of its list.
  [[nodiscard]] bool is_there(const Place& /*place*/) const {
    const Open& at_hand = open_.back();
    return !at_hand.mine.isList() || at_hand.next < at_hand.mine.toListRef().size();
  }

  // Containers.

  void open(IValue mine, const plan::Value& file, Node node, std::vector<Matched> before) {
    Open made{.mine = std::move(mine),
              .file = file,
              .node = node,
              .before = std::move(before),
              .size = 0,
              .entry = std::nullopt,
              .replaced = {}};
    if (made.mine.isGenericDict()) {
      const StateDict dict = made.mine.toGenericDict();
      made.size = dict.size();
      made.entry = dict.begin();
    } else {
      made.size = sequence(file).size();
    }
    if (!made.mine.isTuple()) matched_[identity(made.mine)].push_back({file, node});
    open_.push_back(std::move(made));
  }

  /// A list or a dict, which the state may have under other keys as well.
  void open_shared(const Place& place, std::size_t file_size) {
    if (place.mine.isList() && place.mine.toListRef().size() > file_size) {
      refuse_length(place, place.mine.toListRef().size(), file_size);
    }
    const std::vector<Matched>& before = matched_[identity(place.mine)];
    for (const Matched& matched : before) {
      if (id_of(matched.file) == id_of(place.file)) return take(std::nullopt);
      if (place.mine.isList() && sequence(matched.file).size() != file_size) {
        refuse_contradiction(place, plan_.keys.path(matched.node));
      }
    }
    open(place.mine, place.file, plan_.keys.add_borrowed(place.parent, place.step), before);
  }

  void open_tuple(const Place& place, const plan::Tuple& file) {
    const std::size_t size = place.mine.toTupleRef().elements().size();
    if (size != file.size()) refuse_length(place, size, file.size());
    std::vector<Matched> before;
    if (place.first) {
      const auto* const first = std::get_if<plan::Tuple>(&place.first->file.data);
      if (first == nullptr || first->size() != size) {
        refuse_contradiction(place, plan_.keys.path(place.first->node, place.step));
      }
      before.push_back(
          {plan::Value{*first}, plan_.keys.add_borrowed(place.first->node, place.step)});
    }
    open(place.mine, place.file, plan_.keys.add_borrowed(place.parent, place.step),
         std::move(before));
  }

  /// What is to stand in the place at hand, if it is not what stands there. On to the next one.
  void take(std::optional<IValue> changed) {
    Open& at_hand = open_.back();
    if (changed && at_hand.entry) {
      plan_.changes.push_back({at_hand.mine, (*at_hand.entry)->key(), *std::move(changed)});
    } else if (changed && at_hand.mine.isTuple()) {
      if (at_hand.replaced.empty()) {
        at_hand.replaced = c10::ArrayRef<IValue>(at_hand.mine.toTupleRef().elements()).vec();
      }
      at_hand.replaced[at_hand.next] = *std::move(changed);
    } else if (changed) {
      const bool appended = at_hand.next >= at_hand.mine.toListRef().size();
      plan_.changes.push_back(
          {at_hand.mine, appended ? IValue() : IValue(static_cast<std::int64_t>(at_hand.next)),
           *std::move(changed)});
    }
    ++at_hand.next;
    if (at_hand.entry) ++*at_hand.entry;
  }

  /// Tuples cannot be changed: where an item gets another value, a new one takes the place.
  void close() {
    Open ended = std::move(open_.back());
    open_.pop_back();
    if (open_.empty()) return;
    std::optional<IValue> changed;
    // Under another key it was replaced already.
    if (!ended.replaced.empty() && ended.before.empty()) {
      changed = IValue(c10::ivalue::Tuple::create(std::move(ended.replaced)));
      plan_.keep(std::move(ended.mine));
      plan_.keep(*changed);
    }
    take(std::move(changed));
  }

  // Tensors.

  void tensor(const Place& place, const plan::Tensor& file) {
    const at::Tensor& mine = place.mine.toTensor();
    const auto refuse = [&](std::string cause) {
      throw plan_.error(ErrorCode::mismatch, path(place), std::move(cause));
    };
    if (const auto why = why_not_fillable(mine)) {
      refuse("the state's tensor cannot be filled: it is " + *why);
    }
    if (to_dtype(mine.scalar_type()) != file.dtype()) {
      refuse(fmt::format("dtype {} in the file, {} in the state", plan::name(file.dtype()),
                         c10::toString(mine.scalar_type())));
    }
    const std::vector<std::int64_t> sizes = file.sizes();
    if (mine.sizes() != c10::IntArrayRef(sizes)) {
      refuse(fmt::format("shape {} in the file, {} in the state", plan::shape_words(sizes),
                         plan::shape_words({mine.sizes().data(), mine.sizes().size()})));
    }
    if (mine.numel() == 0) return;
    const std::vector<std::int64_t> strides = file.strides();
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      const std::int64_t stride = mine.stride(static_cast<std::int64_t>(d));
      if (sizes[d] > 1 && stride == 0 && strides[d] != 0) {
        refuse(
            fmt::format("the state's tensor is expanded along dimension {}, the file's is not", d));
      }
    }
    if (const auto why = why_not_resolved(mine, file.conj(), file.neg())) {
      refuse(
          fmt::format("its conjugation or negation in the file differs from the state's, and torch "
                      "cannot compute it: {}",
                      *why));
    }
    plan_.fill_in_place(mine, file, plan_.keys.add_borrowed(place.parent, place.step));
  }

  // What does not match.

  [[nodiscard]] std::string path(const Place& place) const {
    return plan_.keys.path(place.parent, place.step);
  }

  template <class Kind>
  const Kind& expect(const Place& place) const {
    if (const auto* found = std::get_if<Kind>(&place.file.data)) return *found;
    refuse_kind(place);
  }

  [[noreturn]] void refuse_kind(const Place& place) const {
    // Without a counterpart here, nothing that the state could hold would match.
    const bool unsupported = std::holds_alternative<plan::Unsupported>(place.file.data);
    throw plan_.error(
        unsupported ? ErrorCode::unsupported_value : ErrorCode::mismatch, path(place),
        fmt::format("{} in the file, {} in the state", in_words(place.file), place.mine.tagKind()));
  }

  [[noreturn]] void refuse_length(const Place& place, std::size_t mine, std::size_t file) const {
    throw plan_.error(ErrorCode::mismatch, path(place),
                      fmt::format("{} items in the file, {} in the state", file, mine));
  }

  [[noreturn]] void refuse_contradiction(const Place& place, const std::string& first) const {
    throw plan_.error(ErrorCode::mismatch, path(place),
                      fmt::format("in the state it is the same as {}, for which the file has "
                                  "another value",
                                  first));
  }

  /// What the place gets under this key has to be what it got under another one. Where it takes the
  /// bytes of new tensors to know, they are compared before the state is changed.
  void require_same(const Place& place) {
    const std::string first = plan_.keys.path(place.first->node, place.step);
    std::vector<TensorPair> tensors;
    if (!same_value(place.first->file, place.file, tensors)) refuse_contradiction(place, first);
    for (const TensorPair& pair : tensors) {
      const Node made_for = plan_.keys.add_borrowed(place.first->node, place.step);
      const at::Tensor made = plan_.make_tensor(pair.first, made_for);
      if (made.numel() == 0) continue;
      if (why_not_resolved(made, pair.second.conj(), pair.second.neg())) {
        refuse_contradiction(place, first);
      }
      plan_.compare(made, pair.second, plan_.keys.add_borrowed(place.parent, place.step));
    }
  }

  FillPlan& plan_;
  ValueBuilder builder_;
  std::vector<Open> open_;
  std::unordered_map<std::size_t, std::vector<Matched>> matched_;  ///< by the state's container
};

}  // namespace

void match_state(const StateDict& state, const plan::Document& document, const plan::Dict& file,
                 FillPlan& plan) {
  Matcher(document, plan).run(state, file);
}

}  // namespace ckptring::torch_state
