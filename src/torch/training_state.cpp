#include "plan/tensor_bounds.h"
#include "torch/bare_tensor.h"
#include "torch/libtorch_error.h"
#include "torch/optimizer_codecs.h"
#include "torch/overlaps.h"
#include "torch/volatile_mark.h"

#include <ckptring/error.h>
#include <ckptring/torch/training_state.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/nn/modules/embedding.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace ckptring {
namespace {

using c10::IValue;
using torch::optim::Optimizer;
using torch::optim::OptimizerOptions;
using torch_state::in_own_words;
using torch_state::OptimizerCodec;

[[noreturn]] void refuse(ErrorCode code, const std::string& key, std::string cause) {
  throw Error(code, "restore key", key, std::move(cause));
}

std::optional<IValue> find(const StateDict& dict, const IValue& key) {
  const auto found = dict.find(key);
  if (found == dict.end()) return std::nullopt;
  return found->value();
}

IValue at(const StateDict& dict, const std::string& name, const std::string& where,
          const char* hint = "") {
  auto value = find(dict, name);
  if (!value) {
    refuse(ErrorCode::missing_key, where + name, std::string("it is missing in the state") + hint);
  }
  return *std::move(value);
}

[[noreturn]] void refuse_kind(const std::string& key, const char* expected, const IValue& found) {
  refuse(ErrorCode::mismatch, key,
         fmt::format("a {} is expected, the state has a {}", expected, found.tagKind()));
}

/// A number as Python has them: its own defaults are ints in places (momentum=0), and a learning
/// rate or a count of steps may be a tensor of one element.
std::optional<double> number_of(const IValue& value, const std::string& key) {
  if (value.isDouble()) return value.toDouble();
  if (value.isInt()) return static_cast<double>(value.toInt());
  if (!value.isTensor() || !value.toTensor().defined()) return std::nullopt;
  const at::Tensor& tensor = value.toTensor();
  if (const auto why = torch_state::why_not_readable(tensor)) {
    refuse(ErrorCode::mismatch, key, "the state's tensor cannot be read: it is " + *why);
  }
  const bool real = c10::isFloatingType(tensor.scalar_type()) ||
                    c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/false);
  if (tensor.numel() != 1 || !real) return std::nullopt;
  try {
    const at::NoGradGuard no_grad;
    return tensor.item().toDouble();
  } catch (const c10::Error& failure) {
    // In host memory it is the value that libtorch refuses: there are dtypes without numbers.
    const ErrorCode code = torch_state::code_of(failure, tensor.device());
    refuse(code == ErrorCode::internal ? ErrorCode::mismatch : code, key,
           "the state's tensor cannot be read: " + torch_state::words_of(failure));
  }
}

// Values to be copied once everything is checked.

std::string shape_words(const at::Tensor& tensor) {
  return plan::shape_words({tensor.sizes().data(), tensor.sizes().size()});
}

/// Copies of values into tensors, put off until nothing can be wrong any more.
class PendingCopies {
 public:
  /// @throws Error mismatch
  void add(const std::string& key, const at::Tensor& target, const at::Tensor& source) {
    if (const auto why = torch_state::why_not_readable(source)) {
      refuse(ErrorCode::mismatch, key, "the state's tensor cannot be read: it is " + *why);
    }
    if (const auto why = torch_state::why_not_fillable(target)) {
      refuse(ErrorCode::mismatch, key, "the tensor cannot be filled: it is " + *why);
    }
    if (source.sizes() != target.sizes()) {
      refuse(ErrorCode::mismatch, key,
             fmt::format("shape {} in the state, {} expected", shape_words(source),
                         shape_words(target)));
    }
    if (source.scalar_type() != target.scalar_type()) {
      refuse(ErrorCode::mismatch, key,
             fmt::format("dtype {} in the state, {} expected", c10::toString(source.scalar_type()),
                         c10::toString(target.scalar_type())));
    }
    if (target.numel() == 0) return;
    if (same_place(target, source)) {
      copies_.push_back({.key = key, .target = target, .source = source, .done = true});
      return;
    }
    for (std::int64_t d = 0; d < target.dim(); ++d) {
      if (target.size(d) > 1 && target.stride(d) == 0) {
        refuse(ErrorCode::mismatch, key,
               fmt::format("the tensor is expanded along dimension {}: its elements are not "
                           "independent of each other",
                           d));
      }
    }
    if (const auto why = torch_state::why_not_resolved(target, source.is_conj(), source.is_neg())) {
      refuse(
          ErrorCode::mismatch, key,
          "its conjugation or negation differs in the state, and torch cannot compute it: " + *why);
    }
    copies_.push_back({.key = key, .target = target, .source = source});
  }

  /// @throws Error mismatch, before anything is changed; device_failed, out_of_memory and what else
  ///         may happen on a device, with the keys that were overwritten by then
  void run() {
    const at::NoGradGuard no_grad;
    check_overlaps();
    take_shared_sources();
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      const Copy& copy = copies_[i];
      if (copy.done) continue;
      try {
        torch_state::through_libtorch(copy.target.device(),
                                      torch_state::copy_to(copy.target.device()),
                                      [&] { move(copy.target, copy.source); });
      } catch (const Error& failure) {
        throw Error(
            failure.code(), "restore key", copy.key,
            fmt::format("{}: {}; {}", failure.operation(), failure.cause(), overwritten(i)));
      }
      torch_state::bump_version(copy.target);
    }
  }

 private:
  struct Copy {
    std::string key;
    at::Tensor target;
    at::Tensor source;
    bool done = false;  ///< the source is the target: it only has to stay as it is
  };

  static bool same_place(const at::Tensor& a, const at::Tensor& b) {
    return a.is_alias_of(b) && a.storage_offset() == b.storage_offset() &&
           a.strides() == b.strides() && !torch_state::differ_in_lazy_bits(a, b);
  }

  /// Bits where they are the same on both sides: libtorch cannot copy the values of every dtype.
  static void move(const at::Tensor& target, const at::Tensor& source) {
    if (torch_state::differ_in_lazy_bits(target, source)) {
      torch_state::values_of(target).copy_(torch_state::values_of(source));
    } else {
      torch_state::bits_of(target).copy_(torch_state::bits_of(source));
    }
  }

  /// Tensors that lie in the same memory, as tied weights do, have to get the same. The state's
  /// storages stand for a file's records.
  void check_overlaps() const {
    std::map<const c10::StorageImpl*, torch_state::RecordFills> by_storage;
    std::deque<plan::Record> storages;
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      const at::Tensor& source = copies_[i].source;
      torch_state::RecordFills& fills = by_storage[source.storage().unsafeGetStorageImpl()];
      if (fills.record == nullptr) {
        fills.record = &storages.emplace_back(plan::Record{
            .name = {}, .data_offset = i, .size = source.storage().nbytes(), .crc32 = 0});
      }
      fills.fills.push_back({.target = copies_[i].target,
                             .view = {.dtype = torch_state::dtype_or_carrier(source),
                                      .offset = static_cast<std::uint64_t>(source.storage_offset()),
                                      .sizes = source.sizes().vec(),
                                      .strides = source.strides().vec(),
                                      .conj = source.is_conj(),
                                      .neg = source.is_neg()},
                             .key = static_cast<std::uint32_t>(i)});
    }
    std::vector<torch_state::RecordFills> records;
    records.reserve(by_storage.size());
    for (auto& [storage, fills] : by_storage) records.push_back(std::move(fills));
    for (const torch_state::Overlap& overlap : torch_state::find_overlaps(records)) {
      const auto found = contradiction_in(overlap);
      if (!found) continue;
      const std::string earlier = found->earlier != nullptr ? copies_[found->earlier->key].key : "";
      refuse(ErrorCode::mismatch, copies_[found->fill->key].key,
             found->words("the state", earlier));
    }
  }

  [[nodiscard]] std::optional<torch_state::Contradiction> contradiction_in(
      const torch_state::Overlap& overlap) const {
    try {
      return contradiction(overlap, [&](torch_state::RecordFills& reads) {
        for (const torch_state::Fill& read : reads.fills) read_view(read);
      });
    } catch (const std::bad_alloc&) {
      refuse(ErrorCode::out_of_memory, copies_[overlap.front().key].key,
             "there is no memory left to compare it with others in the same memory");
    }
  }

  /// From the storage of the copy's source.
  void read_view(const torch_state::Fill& read) const {
    const at::Tensor& source = copies_[read.key].source;
    try {
      const at::Tensor view = torch_state::view_of_storage(
          source.storage(), read.target.scalar_type(), static_cast<std::int64_t>(read.view.offset),
          read.view.sizes, read.view.strides);
      view.unsafeGetTensorImpl()->_set_conj(read.view.conj);
      view.unsafeGetTensorImpl()->_set_neg(read.view.neg);
      move(read.target, view);
    } catch (const c10::Error& failure) {
      refuse(torch_state::code_of(failure, source.device()), copies_[read.key].key,
             torch_state::words_of(failure));
    }
  }

  /// What lies where something is about to be written is copied before: the state may hold views of
  /// the very tensors that it is restored into.
  void take_shared_sources() {
    std::set<const c10::StorageImpl*> written;
    for (const Copy& copy : copies_) {
      if (!copy.done) written.insert(copy.target.storage().unsafeGetStorageImpl());
    }
    for (Copy& copy : copies_) {
      if (copy.done || !written.contains(copy.source.storage().unsafeGetStorageImpl())) continue;
      try {
        const at::Tensor bits = torch_state::bits_of(copy.source).clone();
        at::Tensor own = torch_state::view_of_storage(bits.storage(), copy.source.scalar_type(), 0,
                                                      bits.sizes(), bits.strides());
        own.unsafeGetTensorImpl()->_set_conj(copy.source.is_conj());
        own.unsafeGetTensorImpl()->_set_neg(copy.source.is_neg());
        copy.source = std::move(own);
      } catch (const c10::Error& failure) {
        throw Error(torch_state::code_of(failure, copy.source.device()), "restore key", copy.key,
                    torch_state::words_of(failure));
      }
    }
  }

  /// In words. The copy that failed may have changed its target as well.
  [[nodiscard]] std::string overwritten(std::size_t failed) const {
    std::vector<std::string> keys;
    for (std::size_t i = 0; i <= failed; ++i) {
      if (!copies_[i].done) keys.push_back(copies_[i].key);
    }
    return fmt::format("already overwritten: {}", fmt::join(keys, ", "));
  }

  std::vector<Copy> copies_;
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
    value = number(option(name), key(name));
  }
  void reals(std::string_view name, std::tuple<double, double>& value) override {
    const IValue found = option(name);
    // Python accepts a list as well, and keeps it.
    const auto items = found.isTuple()  ? c10::ArrayRef<IValue>(found.toTupleRef().elements())
                       : found.isList() ? found.toListRef()
                                        : c10::ArrayRef<IValue>();
    if (items.size() != 2) refuse_kind(key(name), "pair of numbers", found);
    value = {number(items[0], key(name) + "[0]"), number(items[1], key(name) + "[1]")};
  }
  void flag(std::string_view name, bool& value) override {
    const IValue found = option(name);
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
  [[nodiscard]] IValue option(std::string_view name) const {
    return at(group_, std::string(name), where_, "; is it the state of another kind of optimizer?");
  }
  static double number(const IValue& value, const std::string& key) {
    if (const auto found = number_of(value, key)) return *found;
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
    const std::optional<double> found_count = number_of(found, key);
    if (!found_count) refuse_kind(key, "count, or a tensor of one element", found);
    const double count = *found_count;
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
    const bool fits =
        value.defined() && !torch_state::why_not_fillable(value) &&
        !torch_state::why_not_readable(parameter_) && value.sizes() == parameter_.sizes() &&
        value.scalar_type() == parameter_.scalar_type() && value.device() == parameter_.device();
    if (!fits) value = like_parameter(key);
    copies_.add(key, value, source);
  }

 private:
  [[nodiscard]] at::Tensor like_parameter(const std::string& key) const {
    try {
      return at::empty_like(parameter_.detach());
    } catch (const c10::Error& failure) {
      refuse(torch_state::code_of(failure, parameter_.device()), key,
             "cannot make it: " + torch_state::words_of(failure));
    }
  }

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

StateDict tensors_of(const torch::nn::Module& module, const CollectModuleOptions& options) {
  StateDict state = make_state_dict();
  for_each_tensor(module, "", [&](const std::string& name, const at::Tensor& tensor, bool written) {
    in_own_words(ErrorCode::unsupported_value, "collect key", name, [&] {
      state.insert_or_assign(name, written && options.declare_volatile
                                       ? torch_state::marked_volatile(tensor)
                                       : tensor.detach());
    });
  });
  return state;
}

void fill_tensors_of(torch::nn::Module& module, const StateDict& state) {
  PendingCopies copies;
  for_each_tensor(module, "", [&](const std::string& name, const at::Tensor& tensor, bool) {
    const IValue found = at(state, name, "");
    if (!found.isTensor() || !found.toTensor().defined()) refuse_kind(name, "tensor", found);
    copies.add(name, tensor, found.toTensor());
  });
  copies.run();
}

StateDict state_of(const Optimizer& optimizer) {
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

void set_state_of(Optimizer& optimizer, const StateDict& state) {
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
  std::remove_reference_t<decltype(optimizer.state())> new_states;
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
      new_states[identity] = std::move(made);
    }
  }

  copies.run();
  for (std::size_t g = 0; g < new_options.size(); ++g) {
    optimizer.param_groups()[g].set_options(std::move(new_options[g]));
  }
  optimizer.state() = std::move(new_states);
}

at::Tensor state_of_cpu_generator() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::scoped_lock lock(generator.mutex());
  return generator.get_state().clone();
}

void set_state_of_cpu_generator(const at::Tensor& state) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::scoped_lock lock(generator.mutex());
  const at::Tensor present = generator.get_state();
  if (!state.defined() || torch_state::why_not_readable(state) ||
      state.scalar_type() != present.scalar_type() || state.sizes() != present.sizes()) {
    refuse(ErrorCode::mismatch, "generator",
           fmt::format("a uint8 tensor of {} elements is expected", present.numel()));
  }
  try {
    generator.set_state(state);
  } catch (const c10::Error& failure) {
    refuse(torch_state::is_out_of_memory(failure) ? ErrorCode::out_of_memory : ErrorCode::mismatch,
           "generator", torch_state::words_of(failure));
  }
}

}  // namespace

StateDict collect_module(const torch::nn::Module& module, const CollectModuleOptions& options) {
  return in_own_words(ErrorCode::unsupported_value, "collect", "the module",
                      [&] { return tensors_of(module, options); });
}

void restore_module(torch::nn::Module& module, const StateDict& state) {
  in_own_words(ErrorCode::mismatch, "restore", "the module",
               [&] { fill_tensors_of(module, state); });
}

StateDict collect_optimizer(const Optimizer& optimizer) {
  return in_own_words(ErrorCode::unsupported_value, "collect", "the optimizer",
                      [&] { return state_of(optimizer); });
}

void restore_optimizer(Optimizer& optimizer, const StateDict& state) {
  in_own_words(ErrorCode::mismatch, "restore", "the optimizer",
               [&] { set_state_of(optimizer, state); });
}

at::Tensor collect_cpu_generator() {
  return in_own_words(ErrorCode::internal, "collect", "the generator",
                      [] { return state_of_cpu_generator(); });
}

void restore_cpu_generator(const at::Tensor& state) {
  in_own_words(ErrorCode::mismatch, "restore", "the generator",
               [&] { set_state_of_cpu_generator(state); });
}

}  // namespace ckptring
