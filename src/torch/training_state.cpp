#include "torch/optimizer_codecs.h"

#include <ckptring/error.h>
#include <ckptring/training_state.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/nn/modules/embedding.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ckptring {
namespace {

using c10::IValue;
using torch::optim::Optimizer;
using torch::optim::OptimizerOptions;
using torch::optim::OptimizerParamState;
using torch_state::OptimizerCodec;

[[noreturn]] void refuse(ErrorCode code, const std::string& key, std::string cause) {
  throw Error(code, "restore key", key, std::move(cause));
}

std::optional<IValue> find(const StateDict& dict, const IValue& key) {
  const auto found = dict.find(key);
  if (found == dict.end()) return std::nullopt;
  return found->value();
}

IValue at(const StateDict& dict, const std::string& name, const std::string& where) {
  auto value = find(dict, name);
  if (!value) refuse(ErrorCode::missing_key, where + name, "it is missing in the state");
  return *std::move(value);
}

[[noreturn]] void refuse_kind(const std::string& key, const char* expected, const IValue& found) {
  refuse(ErrorCode::mismatch, key,
         fmt::format("a {} is expected, the state has a {}", expected, found.tagKind()));
}

// Values to be copied once everything is checked.

/// Copies of values into tensors, put off until nothing can be wrong any more.
class PendingCopies {
 public:
  /// @throws Error mismatch
  void add(const std::string& key, const at::Tensor& target, const at::Tensor& source) {
    if (source.sizes() != target.sizes()) {
      refuse(ErrorCode::mismatch, key,
             fmt::format("shape [{}] in the state, [{}] expected", fmt::join(source.sizes(), ", "),
                         fmt::join(target.sizes(), ", ")));
    }
    if (source.scalar_type() != target.scalar_type()) {
      refuse(ErrorCode::mismatch, key,
             fmt::format("dtype {} in the state, {} expected", c10::toString(source.scalar_type()),
                         c10::toString(target.scalar_type())));
    }
    if (!target.is_alias_of(source)) copies_.emplace_back(target, source);
  }

  void run() const {
    const at::NoGradGuard no_grad;
    for (const auto& [target, source] : copies_) target.copy_(source);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
};

// Modules: names in the order of Python's `state_dict()`.

/// Whether `forward` writes to a module's parameters: that of an embedding scales down the rows
/// that it looks up.
bool forward_writes_parameters(const torch::nn::Module& module) {
  if (const auto* embedding = module.as<torch::nn::EmbeddingImpl>()) {
    return embedding->options.max_norm().has_value();
  }
  if (const auto* bag = module.as<torch::nn::EmbeddingBagImpl>()) {
    return bag->options.max_norm().has_value();
  }
  return false;
}

/// Calls `visit(name, tensor, whether forward may write to it)`.
template <class Visit>
void for_each_tensor(const torch::nn::Module& module, const std::string& prefix,
                     const Visit& visit) {
  const bool written = forward_writes_parameters(module);
  for (const auto& entry : module.named_parameters(/*recurse=*/false)) {
    if (entry.value().defined()) visit(prefix + entry.key(), entry.value(), written);
  }
  for (const auto& entry : module.named_buffers(/*recurse=*/false)) {
    if (entry.value().defined()) visit(prefix + entry.key(), entry.value(), true);
  }
  for (const auto& child : module.named_children()) {
    for_each_tensor(*child.value(), prefix + child.key() + ".", visit);
  }
}

// Optimizers.

class CollectOptions final : public torch_state::OptionFields {
 public:
  explicit CollectOptions(const StateDict& group) : group_(group) {}
  void real(std::string_view name, double& value) override { put(name, value); }
  void reals(std::string_view name, std::tuple<double, double>& value) override {
    put(name, c10::ivalue::Tuple::create(std::get<0>(value), std::get<1>(value)));
  }
  void flag(std::string_view name, bool& value) override { put(name, value); }
  void only(std::string_view name, bool value) override { put(name, value); }
  void any_flag(std::string_view name) override { put(name, false); }
  void any(std::string_view name) override { put(name, IValue()); }

 private:
  template <class Value>
  void put(std::string_view name, Value&& value) {
    group_.insert_or_assign(std::string(name), IValue(std::forward<Value>(value)));
  }
  StateDict group_;
};

class CollectState final : public torch_state::StateFields {
 public:
  explicit CollectState(const StateDict& state) : state_(state) {}
  void step(std::string_view name, std::int64_t& value) override {
    // Python counts in float32, which ends at 2^24 steps; its float64 goes on.
    const auto type = value <= (std::int64_t{1} << 24) ? c10::kFloat : c10::kDouble;
    put(name, at::scalar_tensor(value, type));
  }
  void tensor(std::string_view name, at::Tensor& value, bool /*required*/) override {
    if (value.defined()) put(name, value);
  }

 private:
  void put(std::string_view name, at::Tensor value) {
    state_.insert_or_assign(std::string(name), IValue(std::move(value)));
  }
  StateDict state_;
};

class RestoreOptions final : public torch_state::OptionFields {
 public:
  RestoreOptions(const StateDict& group, std::string where)
      : group_(group), where_(std::move(where)) {}
  void real(std::string_view name, double& value) override {
    value = number(at(group_, std::string(name), where_), key(name));
  }
  void reals(std::string_view name, std::tuple<double, double>& value) override {
    const IValue found = at(group_, std::string(name), where_);
    // Python accepts a list as well, and keeps it.
    const auto items = found.isTuple()  ? c10::ArrayRef<IValue>(found.toTupleRef().elements())
                       : found.isList() ? found.toListRef()
                                        : c10::ArrayRef<IValue>();
    if (items.size() != 2) refuse_kind(key(name), "pair of numbers", found);
    value = {number(items[0], key(name) + "[0]"), number(items[1], key(name) + "[1]")};
  }
  void flag(std::string_view name, bool& value) override {
    const IValue found = at(group_, std::string(name), where_);
    if (!found.isBool()) refuse_kind(key(name), "bool", found);
    value = found.toBool();
  }
  void only(std::string_view name, bool value) override {
    const auto found = find(group_, std::string(name));
    if (found && found->isBool() && found->toBool() != value) {
      refuse(ErrorCode::unsupported_value, key(name),
             fmt::format("{} cannot be continued here", found->toBool()));
    }
  }
  void any_flag(std::string_view) override {}
  void any(std::string_view) override {}

 private:
  [[nodiscard]] std::string key(std::string_view name) const { return where_ + std::string(name); }
  static double number(const IValue& value, const std::string& key) {
    if (value.isDouble()) return value.toDouble();
    // Python's own defaults are ints in places: momentum=0.
    if (value.isInt()) return static_cast<double>(value.toInt());
    refuse_kind(key, "number", value);
  }
  StateDict group_;
  std::string where_;
};

class RestoreState final : public torch_state::StateFields {
 public:
  /// `present` is the parameter's present state, whose tensors are kept where they fit.
  RestoreState(const StateDict& state, std::string where, const at::Tensor& parameter,
               PendingCopies& copies)
      : state_(state), where_(std::move(where)), parameter_(parameter), copies_(copies) {}

  void step(std::string_view name, std::int64_t& value) override {
    const IValue found = at(state_, std::string(name), where_);
    const std::string key = where_ + std::string(name);
    double count = 0;
    if (found.isTensor() && found.toTensor().defined() && found.toTensor().numel() == 1) {
      count = found.toTensor().item().toDouble();
    } else if (found.isInt()) {
      count = static_cast<double>(found.toInt());
    } else if (found.isDouble()) {
      count = found.toDouble();
    } else {
      refuse_kind(key, "count in a tensor of one element", found);
    }
    if (!(count >= 0 && count <= 0x1p53) || count != std::floor(count)) {
      refuse(ErrorCode::mismatch, key, fmt::format("{} is no count of steps", count));
    }
    value = static_cast<std::int64_t>(count);
  }

  void tensor(std::string_view name, at::Tensor& value, bool required) override {
    const std::string key = where_ + std::string(name);
    const auto found = find(state_, std::string(name));
    if (!found || found->isNone()) {
      if (required) refuse(ErrorCode::missing_key, key, "it is missing in the state");
      value = at::Tensor();
      return;
    }
    if (!found->isTensor() || !found->toTensor().defined()) refuse_kind(key, "tensor", *found);
    const at::Tensor& source = found->toTensor();
    const bool fits = value.defined() && value.sizes() == parameter_.sizes() &&
                      value.scalar_type() == parameter_.scalar_type() &&
                      value.device() == parameter_.device();
    if (!fits) value = at::empty_like(parameter_.detach());
    copies_.add(key, value, source);
  }

 private:
  StateDict state_;
  std::string where_;
  const at::Tensor& parameter_;
  PendingCopies& copies_;
};

StateDict dict_at(const StateDict& dict, const std::string& name) {
  const IValue found = at(dict, name, "");
  if (!found.isGenericDict()) refuse_kind(name, "dict", found);
  return found.toGenericDict();
}

/// The ids that one param group of the state names, as many as the optimizer's has parameters.
c10::ArrayRef<IValue> ids_of(const IValue& params, std::size_t expected, const std::string& key) {
  if (!params.isList()) refuse_kind(key, "list", params);
  const c10::ArrayRef<IValue> ids = params.toListRef();
  if (ids.size() != expected) {
    refuse(ErrorCode::mismatch, key,
           fmt::format("{} parameters in the state, {} in the optimizer", ids.size(), expected));
  }
  return ids;
}

}  // namespace

StateDict collect_module(const torch::nn::Module& module, const CollectModuleOptions& options) {
  StateDict state = make_state_dict();
  for_each_tensor(module, "", [&](const std::string& name, const at::Tensor& tensor, bool written) {
    state.insert_or_assign(
        name, written && options.declare_volatile ? declare_volatile(tensor) : tensor.detach());
  });
  return state;
}

void restore_module(torch::nn::Module& module, const StateDict& state) {
  PendingCopies copies;
  for_each_tensor(module, "", [&](const std::string& name, const at::Tensor& tensor, bool) {
    const IValue found = at(state, name, "");
    if (!found.isTensor() || !found.toTensor().defined()) refuse_kind(name, "tensor", found);
    copies.add(name, tensor, found.toTensor());
  });
  copies.run();
}

StateDict collect_optimizer(const Optimizer& optimizer) {
  const OptimizerCodec& codec = torch_state::codec_of(optimizer);
  StateDict states = make_state_dict();
  auto groups = make_state_list();
  std::int64_t index = 0;
  for (const auto& group : optimizer.param_groups()) {
    StateDict options = make_state_dict();
    CollectOptions option_fields(options);
    codec.options(option_fields, *group.options().clone());
    auto indices = make_state_list();
    for (const at::Tensor& parameter : group.params()) {
      const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
      if (found != optimizer.state().end()) {
        StateDict state = make_state_dict();
        CollectState state_fields(state);
        codec.state(state_fields, *found->second->clone());
        states.insert_or_assign(index, state);
      }
      indices.push_back(index++);
    }
    options.insert_or_assign("params", indices);
    groups.push_back(options);
  }
  StateDict collected = make_state_dict();
  collected.insert_or_assign("state", states);
  collected.insert_or_assign("param_groups", groups);
  return collected;
}

void restore_optimizer(Optimizer& optimizer, const StateDict& state) {
  const OptimizerCodec& codec = torch_state::codec_of(optimizer);
  const StateDict states = dict_at(state, "state");
  const IValue groups_value = at(state, "param_groups", "");
  if (!groups_value.isList()) refuse_kind("param_groups", "list", groups_value);
  const c10::ArrayRef<IValue> groups = groups_value.toListRef();
  if (groups.size() != optimizer.param_groups().size()) {
    refuse(ErrorCode::mismatch, "param_groups",
           fmt::format("{} groups in the state, {} in the optimizer", groups.size(),
                       optimizer.param_groups().size()));
  }

  // Everything is made aside first, so that an error leaves the optimizer as it was.
  PendingCopies copies;
  std::vector<std::unique_ptr<OptimizerOptions>> new_options;
  std::vector<std::pair<void*, std::unique_ptr<OptimizerParamState>>> new_states;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& group = optimizer.param_groups()[g];
    const std::string name = fmt::format("param_groups[{}]", g);
    if (!groups[g].isGenericDict()) refuse_kind(name, "dict", groups[g]);
    const StateDict saved = groups[g].toGenericDict();
    new_options.push_back(group.options().clone());
    RestoreOptions option_fields(saved, name + ".");
    codec.options(option_fields, *new_options.back());

    const IValue params = at(saved, "params", name + ".");
    const auto ids = ids_of(params, group.params().size(), name + ".params");
    for (std::size_t p = 0; p < ids.size(); ++p) {
      if (!ids[p].isInt()) refuse_kind(fmt::format("{}.params[{}]", name, p), "int", ids[p]);
      const auto found = find(states, ids[p]);
      if (!found) continue;
      const std::string where = fmt::format("state.{}", ids[p].toInt());
      if (!found->isGenericDict()) refuse_kind(where, "dict", *found);
      const at::Tensor& parameter = group.params()[p];
      void* identity = parameter.unsafeGetTensorImpl();
      const auto present = optimizer.state().find(identity);
      auto made =
          present == optimizer.state().end() ? codec.make_state() : present->second->clone();
      RestoreState state_fields(found->toGenericDict(), where + ".", parameter, copies);
      codec.state(state_fields, *made);
      new_states.emplace_back(identity, std::move(made));
    }
  }

  copies.run();
  for (std::size_t g = 0; g < new_options.size(); ++g) {
    optimizer.param_groups()[g].set_options(std::move(new_options[g]));
  }
  optimizer.state().clear();
  for (auto& [identity, made] : new_states) optimizer.state()[identity] = std::move(made);
}

at::Tensor collect_cpu_generator() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::scoped_lock lock(generator.mutex());
  return generator.get_state().clone();
}

void restore_cpu_generator(const at::Tensor& state) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::scoped_lock lock(generator.mutex());
  const at::Tensor present = generator.get_state();
  if (!state.defined() || state.scalar_type() != present.scalar_type() ||
      state.sizes() != present.sizes()) {
    refuse(ErrorCode::mismatch, "generator",
           fmt::format("a uint8 tensor of {} elements is expected", present.numel()));
  }
  try {
    generator.set_state(state);
  } catch (const c10::Error& failure) {
    refuse(ErrorCode::mismatch, "generator", failure.what_without_backtrace());
  }
}

}  // namespace ckptring
