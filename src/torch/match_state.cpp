#include "torch/match_state.h"

#include "torch/build_value.h"
#include "torch/dtype_map.h"
#include "torch/plan_state.h"

#include <ckptring/error.h>

#include <ATen/core/List.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
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
  std::string operator()(const std::string&) const { return "a string"; }
  std::string operator()(const plan::Tensor&) const { return "a tensor"; }
  std::string operator()(const std::shared_ptr<plan::List>&) const { return "a list"; }
  std::string operator()(const std::shared_ptr<plan::Tuple>&) const { return "a tuple"; }
  std::string operator()(const std::shared_ptr<plan::Dict>&) const { return "a dict"; }
  std::string operator()(const plan::Unsupported& value) const { return value.what; }
};

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
      return std::holds_alternative<std::string>(value.data);
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

/// A file's dict by key. The texts are borrowed from it.
class DictIndex {
 public:
  explicit DictIndex(const plan::Dict& dict) {
    for (const auto& [key, value] : dict.items) {
      if (const auto* text = std::get_if<std::string>(&key)) {
        by_text_.emplace(*text, &value);
      } else {
        by_number_.emplace(std::get<std::int64_t>(key), &value);
      }
    }
  }
  [[nodiscard]] const plan::Value* find(std::string_view text) const {
    const auto found = by_text_.find(text);
    return found == by_text_.end() ? nullptr : found->second;
  }
  [[nodiscard]] const plan::Value* find(std::int64_t number) const {
    const auto found = by_number_.find(number);
    return found == by_number_.end() ? nullptr : found->second;
  }

 private:
  std::unordered_map<std::string_view, const plan::Value*> by_text_;
  std::unordered_map<std::int64_t, const plan::Value*> by_number_;
};

/// Throws what torch throws where it can set a lazy bit of this dtype and not resolve it.
void try_resolving(const at::Tensor& mine, const plan::Tensor& file) {
  const at::NoGradGuard no_grad;
  const auto one = [](const at::TensorOptions& options, bool conj, bool neg) {
    at::Tensor made = at::zeros({1}, options);
    made.unsafeGetTensorImpl()->_set_conj(conj);
    made.unsafeGetTensorImpl()->_set_neg(neg);
    return made;
  };
  const auto options = at::TensorOptions().dtype(mine.scalar_type());
  one(options.device(mine.device()), mine.is_conj(), mine.is_neg())
      .copy_(one(options, file.conj, file.neg));
}

class Matcher {
 public:
  explicit Matcher(FillPlan& plan) : plan_(plan), builder_(plan) {}

  void dict(const StateDict& state, const plan::Dict& file, Node node, unsigned depth) {
    check_depth(node, depth);
    const DictIndex index(file);
    for (const auto& entry : state) {
      const IValue& key = entry.key();
      KeyStep step = KeyStep::of_key(0);
      const plan::Value* value = nullptr;
      if (key.isString()) {
        step = KeyStep::of(key.toStringView());
        value = index.find(step.text);
      } else if (key.isInt()) {
        step = KeyStep::of_key(key.toInt());
        value = index.find(step.number);
      } else {
        throw plan_.error(ErrorCode::unsupported_value, plan_.keys.path(node),
                          fmt::format("a key of the state's dict is a {}; keys are strings or ints",
                                      key.tagKind()));
      }
      if (value == nullptr) {
        plan_.missing_keys.push_back(plan_.keys.path(node, step));
        continue;
      }
      const auto may_be = [&] { return may_hold(state.valueType(), *value); };
      if (auto changed = match(entry.value(), *value, node, step, depth, may_be)) {
        plan_.changes.push_back({IValue(state), key, *std::move(changed)});
      }
    }
  }

 private:
  /// What has to stand in the place of `mine`, if anything. `may_be` tells whether the place can
  /// hold the file's value where it holds None so far.
  template <class MayBe>
  std::optional<IValue> match(const IValue& mine, const plan::Value& value, Node parent,
                              const KeyStep& step, unsigned depth, const MayBe& may_be) {
    if (mine.isNone() || (mine.isTensor() && !mine.toTensor().defined())) {
      if (std::holds_alternative<plan::None>(value.data)) return std::nullopt;
      if (!may_be()) refuse_kind(mine, value, parent, step);
      return builder_.build(value, parent, step);
    }
    if (mine.isTensor()) {
      tensor(mine.toTensor(), expect<plan::Tensor>(mine, value, parent, step), parent, step);
      return std::nullopt;
    }
    if (mine.isBool()) {
      const bool found = expect<bool>(mine, value, parent, step);
      return found == mine.toBool() ? std::nullopt : std::optional<IValue>(found);
    }
    if (mine.isInt()) {
      const auto found = expect<std::int64_t>(mine, value, parent, step);
      return found == mine.toInt() ? std::nullopt : std::optional<IValue>(found);
    }
    if (mine.isDouble()) {
      const auto found = expect<double>(mine, value, parent, step);
      // As bits: -0.0 is not 0.0, and a NaN is itself.
      const bool same =
          std::bit_cast<std::uint64_t>(found) == std::bit_cast<std::uint64_t>(mine.toDouble());
      return same ? std::nullopt : std::optional<IValue>(found);
    }
    if (mine.isString()) {
      const auto& found = expect<std::string>(mine, value, parent, step);
      return found == mine.toStringRef() ? std::nullopt : std::optional<IValue>(found);
    }
    if (mine.isGenericDict()) {
      const auto& found = expect<std::shared_ptr<plan::Dict>>(mine, value, parent, step);
      dict(mine.toGenericDict(), *found, plan_.keys.add(parent, step), depth + 1);
      return std::nullopt;
    }
    if (mine.isList()) {
      const auto& found = expect<std::shared_ptr<plan::List>>(mine, value, parent, step);
      list(mine, *found, plan_.keys.add(parent, step), depth + 1);
      return std::nullopt;
    }
    if (mine.isTuple()) {
      const auto& found = expect<std::shared_ptr<plan::Tuple>>(mine, value, parent, step);
      return tuple(mine.toTupleRef(), *found, plan_.keys.add(parent, step), depth + 1);
    }
    throw plan_.error(ErrorCode::unsupported_value, plan_.keys.path(parent, step),
                      fmt::format("the state holds a value of kind {} there", mine.tagKind()));
  }

  void list(const IValue& mine, const plan::List& file, Node node, unsigned depth) {
    check_depth(node, depth);
    const c10::ArrayRef<IValue> items = mine.toListRef();
    if (items.size() > file.items.size()) refuse_length(items.size(), file.items.size(), node);
    const c10::TypePtr type = mine.toList().elementType();
    for (std::size_t i = 0; i < file.items.size(); ++i) {
      const KeyStep step = KeyStep::at(i);
      const plan::Value& value = file.items[i];
      const auto may_be = [&] { return may_hold(type, value); };
      if (i < items.size()) {
        if (auto changed = match(items[i], value, node, step, depth, may_be)) {
          plan_.changes.push_back({mine, static_cast<std::int64_t>(i), *std::move(changed)});
        }
        continue;
      }
      if (!may_be()) {
        throw plan_.error(ErrorCode::mismatch, plan_.keys.path(node, step),
                          fmt::format("the state's list holds {} only, the file has {} there",
                                      type->str(), std::visit(InWords{}, value.data)));
      }
      plan_.changes.push_back({mine, IValue(), builder_.build(value, node, step)});
    }
  }

  /// Tuples cannot be changed: where an item gets another value, a new one takes the place.
  std::optional<IValue> tuple(const c10::ivalue::Tuple& mine, const plan::Tuple& file, Node node,
                              unsigned depth) {
    check_depth(node, depth);
    const c10::ArrayRef<IValue> items = mine.elements();
    if (items.size() != file.items.size()) refuse_length(items.size(), file.items.size(), node);
    std::vector<IValue> replaced;
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto changed =
          match(items[i], file.items[i], node, KeyStep::at(i), depth, [] { return true; });
      if (!changed) continue;
      if (replaced.empty()) replaced = items.vec();
      replaced[i] = *std::move(changed);
    }
    if (replaced.empty()) return std::nullopt;
    return IValue(c10::ivalue::Tuple::create(std::move(replaced)));
  }

  void tensor(const at::Tensor& mine, const plan::Tensor& file, Node parent, const KeyStep& step) {
    const auto refuse = [&](std::string cause) {
      throw plan_.error(ErrorCode::mismatch, plan_.keys.path(parent, step), std::move(cause));
    };
    if (mine.layout() != c10::kStrided || mine.is_quantized() || mine.is_meta() ||
        !mine.has_storage() || mine._is_zerotensor()) {
      refuse("the state's tensor (sparse, quantized, meta or without memory) cannot be filled");
    }
    if (to_dtype(mine.scalar_type()) != file.dtype) {
      refuse(fmt::format("dtype {} in the file, {} in the state", plan::name(file.dtype),
                         c10::toString(mine.scalar_type())));
    }
    if (mine.sizes() != c10::IntArrayRef(file.sizes)) {
      refuse(fmt::format("shape [{}] in the file, [{}] in the state", fmt::join(file.sizes, ", "),
                         fmt::join(mine.sizes(), ", ")));
    }
    if (mine.numel() == 0) return;
    for (std::size_t d = 0; d < file.sizes.size(); ++d) {
      const std::int64_t stride = mine.stride(static_cast<std::int64_t>(d));
      if (file.sizes[d] > 1 && stride == 0 && file.strides[d] != 0) {
        refuse(
            fmt::format("the state's tensor is expanded along dimension {}, the file's is not", d));
      }
    }
    if (mine.is_conj() != file.conj || mine.is_neg() != file.neg) {
      try {
        try_resolving(mine, file);
      } catch (const c10::Error& failure) {
        refuse(
            fmt::format("its conjugation or negation in the file differs from the state's, and "
                        "torch cannot compute it: {}",
                        failure.what_without_backtrace()));
      }
    }
    plan_.fill_in_place(mine, file, plan_.keys.add(parent, step));
  }

  template <class Kind>
  const Kind& expect(const IValue& mine, const plan::Value& value, Node parent,
                     const KeyStep& step) const {
    if (const auto* found = std::get_if<Kind>(&value.data)) return *found;
    refuse_kind(mine, value, parent, step);
  }

  [[noreturn]] void refuse_kind(const IValue& mine, const plan::Value& value, Node parent,
                                const KeyStep& step) const {
    // Without a counterpart here, nothing that the state could hold would match.
    const bool unsupported = std::holds_alternative<plan::Unsupported>(value.data);
    throw plan_.error(unsupported ? ErrorCode::unsupported_value : ErrorCode::mismatch,
                      plan_.keys.path(parent, step),
                      fmt::format("{} in the file, {} in the state",
                                  std::visit(InWords{}, value.data), mine.tagKind()));
  }

  [[noreturn]] void refuse_length(std::size_t mine, std::size_t file, Node node) const {
    throw plan_.error(ErrorCode::mismatch, plan_.keys.path(node),
                      fmt::format("{} items in the file, {} in the state", file, mine));
  }

  void check_depth(Node node, unsigned depth) const {
    if (depth <= kMaxDepth) return;
    throw plan_.error(
        ErrorCode::unsupported_value, plan_.keys.path(node),
        fmt::format("the state is nested more than {} deep, or it contains itself", kMaxDepth));
  }

  FillPlan& plan_;
  ValueBuilder builder_;
};

}  // namespace

void match_state(const StateDict& state, const plan::Dict& file, FillPlan& plan) {
  Matcher(plan).dict(state, file, KeyTree::kRoot, 0);
}

}  // namespace ckptring::torch_state
