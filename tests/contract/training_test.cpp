// A training run that was saved and restored goes on exactly as one that was not interrupted.
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

#include <functional>
#include <memory>
#include <vector>

#include "contract/contract.h"
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
      {[](const StateDict& state) {
         (void)dict_at(state, {"state", 1}).erase("exp_avg");
       },
       ErrorCode::missing_key, "state.1.exp_avg"},
      {in_group("lr", "fast"), ErrorCode::mismatch, "param_groups[1].lr"},
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

TEST_F(TrainingState, AWrongGeneratorStateIsRefused) {
  EXPECT_EQ(error_of([] { restore_cpu_generator(at::zeros({10}, c10::kByte)); }).code(),
            ErrorCode::mismatch);
  EXPECT_EQ(error_of([] { restore_cpu_generator(at::Tensor()); }).code(), ErrorCode::mismatch);
}

}  // namespace
}  // namespace ckptring::test
