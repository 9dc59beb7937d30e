// A training run that was saved and restored goes on exactly as one that was not interrupted.
#include <ATen/ops/quantize_per_tensor.h>
#include <c10/core/InferenceMode.h>
#include <ckptring/training_state.h>
#include <gmock/gmock.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "contract/contract.h"
#include "contract/odd_tensors.h"
#include "contract/states.h"

namespace ckptring::test {
namespace {

using testing::HasSubstr;
using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

/// A small model with everything that has state: parameters, buffers, random numbers.
torch::nn::Sequential make_model() {
  torch::nn::Sequential model(torch::nn::Linear(8, 16), torch::nn::BatchNorm1d(16),
                              torch::nn::Dropout(0.25),
                              torch::nn::Linear(torch::nn::LinearOptions(16, 4).bias(false)));
  model->to(training_device());
  return model;
}

using MakeOptimizer =
    std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<at::Tensor>)>;

struct TrainingRun {
  explicit TrainingRun(const MakeOptimizer& make) : model(make_model()) {
    optimizer = make(model->parameters());
  }
  double step(std::int64_t number) {
    const at::Tensor input =
        at::arange(48 * 8, c10::kFloat).view({48, 8}).add(number).sin().to(training_device());
    optimizer->zero_grad();
    const at::Tensor loss = model->forward(input).pow(2).sum();
    loss.backward();
    optimizer->step();
    return loss.item().toDouble();
  }
  [[nodiscard]] StateDict collect() const {
    return dict({{"model", collect_module(*model)},
                 {"optimizer", collect_optimizer(*optimizer)},
                 {"generator", collect_cpu_generator()}});
  }
  void restore(const StateDict& state) {
    restore_module(*model, state.at("model").toGenericDict());
    restore_optimizer(*optimizer, state.at("optimizer").toGenericDict());
    restore_cpu_generator(state.at("generator").toTensor());
  }
  torch::nn::Sequential model;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
};

MakeOptimizer adamw(const AdamWOptions& options) {
  return [=](std::vector<at::Tensor> parameters) {
    // Two groups with options of their own, as users have them for weight decay.
    std::vector<torch::optim::OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<at::Tensor>{parameters[0], parameters[4]});
    groups.emplace_back(std::vector<at::Tensor>{parameters[1], parameters[2], parameters[3]},
                        std::make_unique<AdamWOptions>(AdamWOptions(options).weight_decay(0.5)));
    return std::make_unique<AdamW>(groups, options);
  };
}

MakeOptimizer sgd(const SGDOptions& options) {
  return [=](std::vector<at::Tensor> parameters) {
    return std::make_unique<SGD>(std::move(parameters), options);
  };
}

class Training : public Contract {
 protected:
  void continues_exactly(const MakeOptimizer& make) {
    at::manual_seed(1);
    TrainingRun run(make);
    for (std::int64_t i = 0; i < 5; ++i) run.step(i);
    save("it", run.collect());
    std::vector<double> expected;
    for (std::int64_t i = 5; i < 15; ++i) expected.push_back(run.step(i));

    at::manual_seed(2);
    TrainingRun resumed(make);
    resumed.step(100);  // a state of its own, which must be gone afterwards
    resumed.restore(checkpointer->load(directory / "it").state);
    for (std::int64_t i = 5; i < 15; ++i) {
      EXPECT_EQ(resumed.step(i), expected[static_cast<std::size_t>(i - 5)]) << "step " << i;
    }
    expect_equal(run.collect(), resumed.collect(), "state");
  }
};
CKPTRING_ALL_PATHS(Training);

TEST_P(Training, ContinuesExactlyWithAdamW) {
  continues_exactly(adamw(AdamWOptions(1e-2).betas({0.8, 0.95}).eps(1e-7)));
}

TEST_P(Training, ContinuesExactlyWithAdamWAndAmsgrad) {
  continues_exactly(adamw(AdamWOptions(1e-2).amsgrad(true)));
}

TEST_P(Training, ContinuesExactlyWithSgd) { continues_exactly(sgd(SGDOptions(1e-3))); }

TEST_P(Training, ContinuesExactlyWithSgdAndNesterovMomentum) {
  continues_exactly(sgd(SGDOptions(1e-3).momentum(0.9).nesterov(true).weight_decay(0.01)));
}

TEST_P(Training, ChangedOptionsAreRestored) {
  TrainingRun run(adamw(AdamWOptions(1e-2)));
  for (auto& group : run.optimizer->param_groups()) group.options().set_lr(0.125);
  save("it", run.collect());
  TrainingRun resumed(adamw(AdamWOptions(1.0).betas({0.1, 0.2}).eps(1).amsgrad(true)));
  resumed.restore(checkpointer->load(directory / "it").state);
  const auto& options =
      dynamic_cast<const AdamWOptions&>(resumed.optimizer->param_groups()[1].options());
  EXPECT_EQ(options.lr(), 0.125);
  EXPECT_EQ(options.betas(), std::make_tuple(0.9, 0.999));
  EXPECT_EQ(options.eps(), 1e-8);
  EXPECT_EQ(options.weight_decay(), 0.5);
  EXPECT_FALSE(options.amsgrad());
}

TEST_P(Training, AModuleCanBeLoadedInPlace) {
  TrainingRun run(sgd(SGDOptions(1e-3)));
  run.step(0);
  save("it", dict({{"model", collect_module(*run.model)}}));
  TrainingRun other(sgd(SGDOptions(1e-3)));
  const at::Tensor weight = other.model->parameters()[0];
  checkpointer->load(directory / "it", dict({{"model", collect_module(*other.model)}}),
                     {.strict = true});
  EXPECT_TRUE(other.model->parameters()[0].is_same(weight));
  EXPECT_TRUE(weight.requires_grad());
  expect_equal(collect_module(*run.model), collect_module(*other.model), "model");
}

/// Nothing about these depends on how it was saved.
class TrainingState : public testing::Test {};

TEST_F(TrainingState, ModulesHavePythonsKeysInPythonsOrder) {
  std::vector<std::string> keys;
  for (const auto& entry : collect_module(*make_model())) keys.push_back(entry.key().toStringRef());
  EXPECT_THAT(keys,
              testing::ElementsAre("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean",
                                   "1.running_var", "1.num_batches_tracked", "3.weight"));
}

TEST_F(TrainingState, StateThatIsNotGivenIsErased) {
  TrainingRun fresh(adamw({}));
  TrainingRun used(adamw({}));
  const StateDict empty = collect_optimizer(*fresh.optimizer);
  used.step(0);
  EXPECT_EQ(used.optimizer->state().size(), 5u);
  restore_optimizer(*used.optimizer, empty);
  EXPECT_TRUE(used.optimizer->state().empty());
}

TEST_F(TrainingState, RestoredStateIsACopy) {
  TrainingRun run(adamw({}));
  run.step(0);
  const StateDict state = collect_optimizer(*run.optimizer);
  TrainingRun other(adamw({}));
  restore_optimizer(*other.optimizer, state);
  const std::string before =
      bits(state.at("state").toGenericDict().at(0).toGenericDict().at("exp_avg").toTensor());
  other.step(1);
  EXPECT_EQ(bits(state.at("state").toGenericDict().at(0).toGenericDict().at("exp_avg").toTensor()),
            before);
}

TEST_F(TrainingState, AnUnknownOptimizerIsNamed) {
  torch::optim::Adagrad optimizer(make_model()->parameters(), torch::optim::AdagradOptions());
  for (const Error& error : {error_of([&] { (void)collect_optimizer(optimizer); }),
                             error_of([&] { restore_optimizer(optimizer, make_state_dict()); })}) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    EXPECT_THAT(error.what(), HasSubstr("torch::optim::Adagrad"));
  }
}

/// The dict in `state` at `path` (dict keys and list indices), to be changed by a test.
StateDict dict_at(const IValue& state, std::initializer_list<IValue> path) {
  IValue value = state;
  for (const IValue& step : path) {
    value = value.isList() ? value.toListRef()[static_cast<std::size_t>(step.toInt())]
                           : value.toGenericDict().at(step);
  }
  return value.toGenericDict();
}

TEST_F(TrainingState, AnOptimizerMismatchNamesTheKeyAndChangesNothing) {
  struct Case {
    std::function<void(const StateDict&)> change;
    ErrorCode code;
    std::string key;
  };
  const auto in_state = [](const char* key, const IValue& value) {
    return [=](const StateDict& state) {
      dict_at(state, {"state", 1}).insert_or_assign(key, value);
    };
  };
  const auto in_group = [](const char* key, const IValue& value) {
    return [=](const StateDict& state) {
      dict_at(state, {"param_groups", 1}).insert_or_assign(key, value);
    };
  };
  const std::vector<Case> cases = {
      {in_state("exp_avg", at::zeros({3})), ErrorCode::mismatch, "state.1.exp_avg"},
      {in_state("exp_avg", at::zeros({4, 16}, c10::kDouble)), ErrorCode::mismatch,
       "state.1.exp_avg"},
      {in_state("exp_avg_sq", 5), ErrorCode::mismatch, "state.1.exp_avg_sq"},
      {in_state("step", "many"), ErrorCode::mismatch, "state.1.step"},
      {in_state("step", at::full({}, 1.5)), ErrorCode::mismatch, "state.1.step"},
      {in_state("step", at::empty({}, c10::kMeta)), ErrorCode::mismatch, "state.1.step"},
      {in_state("step", nested_tensor()), ErrorCode::mismatch, "state.1.step"},
      {in_state("step", at::empty({}, c10::kFloat4_e2m1fn_x2)), ErrorCode::mismatch,
       "state.1.step"},
      {in_state("exp_avg", at::empty({4, 16}, c10::kMeta)), ErrorCode::mismatch, "state.1.exp_avg"},
      {in_state("exp_avg", shapeless_tensor()), ErrorCode::mismatch, "state.1.exp_avg"},
      {in_state("exp_avg_sq", at::ones({4, 16}).to_sparse()), ErrorCode::mismatch,
       "state.1.exp_avg_sq"},
      {[](const StateDict& state) {
         (void)dict_at(state, {"state", 1}).erase("exp_avg");
       },
       ErrorCode::missing_key, "state.1.exp_avg"},
      {in_group("lr", "fast"), ErrorCode::mismatch, "param_groups[1].lr"},
      {in_group("lr", at::ones({2})), ErrorCode::mismatch, "param_groups[1].lr"},
      {in_group("lr", at::ones({}, c10::kComplexFloat)), ErrorCode::mismatch, "param_groups[1].lr"},
      {in_group("lr", at::empty({}, c10::kMeta)), ErrorCode::mismatch, "param_groups[1].lr"},
      {in_group("lr", at::Tensor()), ErrorCode::mismatch, "param_groups[1].lr"},
      {in_group("betas", tuple({0.9})), ErrorCode::mismatch, "param_groups[1].betas"},
      {in_group("amsgrad", 1), ErrorCode::mismatch, "param_groups[1].amsgrad"},
      {in_group("maximize", true), ErrorCode::unsupported_value, "param_groups[1].maximize"},
      {in_group("params", list({0})), ErrorCode::mismatch, "param_groups[1].params"},
      {[](const StateDict& state) {
         (void)dict_at(state, {"param_groups", 1}).erase("eps");
       },
       ErrorCode::missing_key, "param_groups[1].eps"},
      {[](const StateDict& state) { state.insert_or_assign("param_groups", list({})); },
       ErrorCode::mismatch, "param_groups"},
      {[](const StateDict& state) { (void)state.erase("state"); }, ErrorCode::missing_key, "state"},
  };
  for (const Case& one : cases) {
    TrainingRun source(adamw(AdamWOptions(0.5)));
    source.step(0);
    const StateDict state = collect_optimizer(*source.optimizer);
    one.change(state);
    TrainingRun target(adamw({}));
    target.step(1);
    target.step(2);
    const std::string before =
        bits(dict_at(collect_optimizer(*target.optimizer), {"state", 0}).at("exp_avg").toTensor());
    const Error error = error_of([&] { restore_optimizer(*target.optimizer, state); });
    EXPECT_EQ(error.code(), one.code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key " + one.key + ":"));
    const StateDict after = collect_optimizer(*target.optimizer);
    EXPECT_EQ(bits(dict_at(after, {"state", 0}).at("exp_avg").toTensor()), before) << error.what();
    EXPECT_EQ(dict_at(after, {"param_groups", 0}).at("lr").toDouble(), 1e-3) << error.what();
  }
}

TEST_F(TrainingState, AModuleMismatchNamesTheKeyAndChangesNothing) {
  auto model = make_model();
  const std::string before = bits(model->parameters()[0]);
  StateDict state = make_state_dict();
  for (const auto& entry : collect_module(*make_model())) {
    state.insert_or_assign(entry.key(), entry.value());
  }
  state.insert_or_assign("3.weight", at::zeros({2}));
  const Error shape = error_of([&] { restore_module(*model, state); });
  EXPECT_EQ(shape.code(), ErrorCode::mismatch);
  EXPECT_THAT(shape.what(), HasSubstr("3.weight"));
  (void)state.erase("3.weight");
  const Error missing = error_of([&] { restore_module(*model, state); });
  EXPECT_EQ(missing.code(), ErrorCode::missing_key);
  EXPECT_EQ(bits(model->parameters()[0]), before);
}

/// A module of buffers alone, whatever they are.
struct Buffers : torch::nn::Module {
  explicit Buffers(const std::vector<std::pair<std::string, at::Tensor>>& buffers) {
    for (const auto& [name, tensor] : buffers) register_buffer(name, tensor);
  }
};

TEST_F(TrainingState, WhatCannotBeCopiedIsAMismatchBeforeAnythingIsChanged) {
  at::Tensor shrunk = at::zeros({4});
  shrunk.storage().unsafeGetStorageImpl()->set_nbytes(8);
  const at::Tensor ones = at::ones({4});
  const auto b32 = [] { return noise({4}, c10::ScalarType::BComplex32); };
  struct Case {
    at::Tensor mine;
    at::Tensor given;
    std::string why;
  };
  const std::vector<Case> cases = {
      // The module's.
      {at::zeros({1}).expand({4}), ones, "expanded along dimension 0"},
      {at::empty({4}, c10::kMeta), ones, "meta"},
      {at::zeros({4}).to_sparse(), ones, "layout Sparse"},
      {shrunk, ones, "beyond its storage of 8 bytes"},
      {freed_tensor(), ones, "beyond its storage of 0 bytes"},
      {nested_tensor(), ones, "nested"},
      {shapeless_tensor(), ones, "no sizes"},
      {at::_efficientzerotensor({4}, c10::kFloat), ones, "without memory"},
      // The state's.
      {at::zeros({4}), at::empty({4}, c10::kMeta), "meta"},
      {at::zeros({4}), ones.to_sparse(), "layout Sparse"},
      {at::zeros({4}), at::quantize_per_tensor(ones, 0.1, 0, c10::kQInt8), "quantized"},
      {at::zeros({4}), nested_tensor(), "nested"},
      {at::zeros({4}), shapeless_tensor(), "no sizes"},
      {at::zeros({4}), freed_tensor(), "beyond its storage of 0 bytes"},
      {at::zeros({4}), at::_efficientzerotensor({4}, c10::kFloat), "without memory"},
      {at::zeros({4}), at::ones({1, 4}), "shape [1, 4] in the state"},
      {at::zeros({4}), at::ones({4}, c10::kHalf), "dtype Half in the state"},
      // Both, to each other.
      {b32(), at::_conj(b32()), "conjugation"},
  };
  for (const Case& one : cases) {
    const at::Tensor first = at::zeros({2});
    Buffers module({{"first", first}, {"odd", one.mine}});
    const StateDict state = dict({{"first", at::ones({2})}, {"odd", one.given}});
    const Error error = error_of([&] { restore_module(module, state); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("key odd:"));
    EXPECT_THAT(error.what(), HasSubstr(one.why));
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
    EXPECT_TRUE(first.equal(at::zeros({2}))) << error.what();
  }
}

TEST_F(TrainingState, AShapeThatNobodyWouldReadIsNamedByItsBeginning) {
  const at::Tensor long_shape = at::ones(std::vector<std::int64_t>(10000, 1));
  Buffers module({{"b", at::zeros({4})}});
  const Error error = error_of([&] { restore_module(module, dict({{"b", long_shape}})); });
  EXPECT_EQ(error.code(), ErrorCode::mismatch);
  EXPECT_THAT(error.what(), HasSubstr("10000 dimensions] in the state, [4] expected"));
  EXPECT_LT(error.cause().size(), 500u);
}

TEST_F(TrainingState, WhatOnlyLibtorchsCopiesRefuseIsCopied) {
  const auto [inference, conj] = [] {
    const c10::InferenceMode guard;
    return std::pair(at::zeros({2, 3}), at::_conj(at::zeros({2, 3}, c10::kComplexFloat)));
  }();
  const at::Tensor leaf = at::zeros({2, 3}).set_requires_grad(true);
  const at::Tensor values = noise({2, 3}, c10::kFloat);
  const at::Tensor complex = noise({2, 3}, c10::kInt).to(c10::kComplexFloat);
  Buffers module({{"inference", inference}, {"conj", conj}, {"leaf", leaf}});
  const auto version = leaf._version();
  restore_module(module, dict({{"inference", values}, {"conj", complex}, {"leaf", values}}));
  for (const at::Tensor& filled : {inference, leaf}) EXPECT_EQ(bits(filled), bits(values));
  EXPECT_EQ(bits(conj), bits(complex));
  EXPECT_GT(leaf._version(), version);
  // Dtypes that libtorch has no copies for.
  for (const auto type : {c10::ScalarType::UInt3, c10::ScalarType::Float4_e2m1fn_x2,
                          c10::ScalarType::Bits16, c10::ScalarType::BComplex32}) {
    const at::Tensor odd = noise({2, 3}, type, 1);
    Buffers one({{"odd", odd}});
    restore_module(one, dict({{"odd", noise({2, 3}, type, 2)}}));
    EXPECT_EQ(
        std::memcmp(odd.const_data_ptr(), noise({2, 3}, type, 2).const_data_ptr(), odd.nbytes()),
        0);
  }
}

TEST_F(TrainingState, AModuleIsRestoredFromViewsOfItsOwnTensors) {
  // All in one storage, as some trainers lay out their parameters.
  const at::Tensor flat = at::arange(12, c10::kFloat);
  const at::Tensor a = flat.slice(0, 0, 4);
  const at::Tensor b = flat.slice(0, 4, 8);
  const at::Tensor c = flat.slice(0, 8, 12);
  Buffers module({{"a", a}, {"b", b}, {"c", c}});
  restore_module(module, dict({{"a", b}, {"b", a}, {"c", c}}));
  EXPECT_TRUE(flat.equal(at::tensor({4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11}, c10::kFloat)));
  // One that overlaps where it goes.
  restore_module(module, dict({{"a", flat.slice(0, 2, 6)}, {"b", b}, {"c", c}}));
  EXPECT_TRUE(flat.equal(at::tensor({6, 7, 0, 1, 0, 1, 2, 3, 8, 9, 10, 11}, c10::kFloat)));
}

TEST_F(TrainingState, TiedTensorsAreRestoredFromEqualOnesOnly) {
  const at::Tensor tied = at::zeros({4});
  Buffers module({{"in", tied}, {"out", tied}, {"row", tied.slice(0, 1, 2)}});
  const at::Tensor values = noise({4}, c10::kFloat);
  restore_module(module, dict({{"in", values}, {"out", values}, {"row", values.slice(0, 1, 2)}}));
  restore_module(
      module,
      dict({{"in", values}, {"out", values.clone()}, {"row", values.slice(0, 1, 2).clone()}}));
  EXPECT_EQ(bits(tied), bits(values));
  const std::string before = bits(tied);
  for (const auto& [out, row, names] :
       {std::tuple(at::ones({4}), values.slice(0, 1, 2), "key out: .* same memory as in"),
        std::tuple(values, at::ones({1}), "key row: .* same memory as in")}) {
    const Error error = error_of([&, &o = out, &r = row] {
      restore_module(module, dict({{"in", values}, {"out", o}, {"row", r}}));
    });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), testing::ContainsRegex(names));
    EXPECT_EQ(bits(tied), before);
  }
}

TEST_F(TrainingState, TensorsInTheSameMemoryGetWhatFitsTogetherOnly) {
  const at::Tensor values = noise({100}, c10::kFloat);
  const auto part = [&](std::int64_t first) { return values.narrow(0, first, 8); };
  struct Case {
    StateDict state;
    std::string names;  ///< empty: they fit together
  };
  // Of one storage, at distances that fit as elements, and as bytes only.
  for (const Case& one : {Case{dict({{"p1", part(0)}, {"p2", part(2)}}), ""},
                          Case{dict({{"p1", part(0)}, {"p2", part(8)}}), "key p2: .* as p1"},
                          Case{dict({{"p1", part(0)}, {"p2", part(9)}}), "key p2: .* as p1"}}) {
    const at::Tensor memory = at::zeros({10});
    Buffers module({{"p1", memory.narrow(0, 0, 8)}, {"p2", memory.narrow(0, 2, 8)}});
    if (one.names.empty()) {
      restore_module(module, one.state);
      EXPECT_EQ(bits(memory), bits(values.narrow(0, 0, 10)));
      continue;
    }
    const Error error = error_of([&] { restore_module(module, one.state); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), testing::ContainsRegex(one.names));
    EXPECT_TRUE(memory.equal(at::zeros({10})));
  }

  // One that is restored from itself stays as it is.
  const at::Tensor tied = at::ones({4});
  Buffers pair({{"a", tied}, {"b", tied.detach()}});
  const Error changed = error_of([&] {
    restore_module(pair, dict({{"a", tied}, {"b", at::zeros({4})}}));
  });
  EXPECT_EQ(changed.code(), ErrorCode::mismatch);
  EXPECT_THAT(changed.what(), testing::ContainsRegex("key (b: .* as a|a: .* as b),"));
  EXPECT_TRUE(tied.equal(at::ones({4})));
  const auto version = tied._version();
  restore_module(pair, dict({{"a", tied}, {"b", at::ones({4})}}));
  restore_module(pair, dict({{"a", tied}, {"b", tied}}));
  EXPECT_LE(tied._version(), version + 1);
  Buffers expanded({{"e", at::ones({1}).expand({4})}});
  restore_module(expanded, dict({{"e", expanded.named_buffers()["e"]}}));

  // One that meets itself.
  const at::Tensor base = at::zeros({4});
  Buffers windows({{"first", at::zeros({2})}, {"w", base.as_strided({3, 2}, {1, 1})}});
  const Error several = error_of([&] {
    restore_module(windows, dict({{"first", at::ones({2})},
                                  {"w", at::arange(6).to(c10::kFloat).view({3, 2})}}));
  });
  EXPECT_EQ(several.code(), ErrorCode::mismatch);
  EXPECT_THAT(several.what(), HasSubstr("key w:"));
  EXPECT_THAT(several.what(), HasSubstr("for which the state has several values"));
  EXPECT_TRUE(base.equal(at::zeros({4})));
  EXPECT_TRUE(windows.named_buffers()["first"].equal(at::zeros({2})));
  const at::Tensor from = at::arange(4).to(c10::kFloat);
  restore_module(windows,
                 dict({{"first", at::ones({2})}, {"w", from.unfold(0, 2, 1).contiguous()}}));
  EXPECT_EQ(bits(base), bits(from));
}

TEST_F(TrainingState, NumbersMayBeTensorsAsInPython) {
  TrainingRun source(adamw({}));
  source.step(0);
  const StateDict state = collect_optimizer(*source.optimizer);
  const StateDict group = dict_at(state, {"param_groups", 0});
  group.insert_or_assign("lr", at::scalar_tensor(0.125));
  group.insert_or_assign("eps", at::full({1}, 0.25, c10::kDouble));
  group.insert_or_assign("betas", list({at::scalar_tensor(0.5), at::scalar_tensor(1, c10::kLong)}));
  dict_at(state, {"state", 1}).insert_or_assign("step", at::scalar_tensor(7, c10::kInt));
  TrainingRun target(adamw({}));
  restore_optimizer(*target.optimizer, state);
  const auto& options =
      dynamic_cast<const AdamWOptions&>(target.optimizer->param_groups()[0].options());
  EXPECT_EQ(options.lr(), 0.125);
  EXPECT_EQ(options.eps(), 0.25);
  EXPECT_EQ(options.betas(), std::make_tuple(0.5, 1.0));
  const StateDict after = collect_optimizer(*target.optimizer);
  EXPECT_EQ(dict_at(after, {"state", 1}).at("step").toTensor().item().toInt(), 7);
}

TEST_F(TrainingState, TheStateOfAnotherKindOfOptimizerIsSuspected) {
  TrainingRun source(adamw({}));
  TrainingRun target(sgd(SGDOptions(1.0)));
  // SGD has one group here.
  const StateDict state = collect_optimizer(*source.optimizer);
  state.insert_or_assign("param_groups", list({dict_at(state, {"param_groups", 0})}));
  const Error error = error_of([&] { restore_optimizer(*target.optimizer, state); });
  EXPECT_EQ(error.code(), ErrorCode::missing_key);
  EXPECT_THAT(error.what(), HasSubstr("key param_groups[0].momentum:"));
  EXPECT_THAT(error.what(), HasSubstr("another kind of optimizer"));
}

TEST_F(TrainingState, AWrongGeneratorStateIsRefused) {
  for (const at::Tensor& wrong :
       {at::zeros({10}, c10::kByte), at::Tensor(), nested_tensor(), shapeless_tensor(),
        at::empty({5056}, at::device(c10::kMeta).dtype(c10::kByte)),
        at::zeros({10112}, c10::kByte).slice(0, 0, 10112, 2)}) {
    const Error error = error_of([&] { restore_cpu_generator(wrong); });
    EXPECT_EQ(error.code(), ErrorCode::mismatch);
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
  }
}

TEST_F(TrainingState, WhatHoldsTensorsThatTellNothingIsCollectedOrRefusedWithItsWords) {
  // Nothing but Error leaves any call, whatever libtorch throws.
  for (const at::Tensor& odd : {nested_tensor(), shapeless_tensor(), freed_tensor()}) {
    Buffers module({{"odd", odd}});
    try {
      (void)collect_module(module);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    }
    for (const StateDict& state : {dict({{"odd", odd}}), dict({{"odd", 1}}), dict({})}) {
      (void)error_of([&] { restore_module(module, state); });
    }
  }
  Buffers lonely({{"first", at::zeros({2})}, {"odd", lonely_tensor()}});
  for (const bool declared : {true, false}) {
    const Error error =
        error_of([&] { (void)collect_module(lonely, {.declare_volatile = declared}); });
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    EXPECT_STREQ(error.what(), "collect key odd: libtorch refuses: there is");
  }
  torch::optim::SGD without_options({at::zeros({2})}, SGDOptions(1.0));
  without_options.param_groups()[0].set_options(std::make_unique<AdamWOptions>());
  const Error other = error_of([&] { (void)collect_optimizer(without_options); });
  EXPECT_EQ(other.code(), ErrorCode::unsupported_value);
  EXPECT_THAT(other.what(), HasSubstr("AdamWOptions where a torch::optim::SGDOptions belongs"));
  without_options.param_groups()[0].set_options(nullptr);
  EXPECT_EQ(error_of([&] { (void)collect_optimizer(without_options); }).code(),
            ErrorCode::unsupported_value);
}

}  // namespace
}  // namespace ckptring::test
