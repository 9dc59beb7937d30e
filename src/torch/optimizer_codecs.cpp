#include "torch/optimizer_codecs.h"

#include <ckptring/error.h>

#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <c10/util/Type.h>

#include <array>
#include <string>

namespace ckptring::torch_state {
namespace {

using torch::optim::OptimizerOptions;
using torch::optim::OptimizerParamState;

/// What an optimizer holds as the class that is its own. A user may have put in another.
template <class Own, class Base>
Own& as(Base& base) {
  if (auto* const own = dynamic_cast<Own*>(&base)) return *own;
  throw Error(ErrorCode::unsupported_value, "collect or restore", "the optimizer",
              "it has a " + c10::demangle(typeid(base).name()) + " where a " +
                  c10::demangle(typeid(Own).name()) + " belongs");
}

template <class State>
std::unique_ptr<OptimizerParamState> make() {
  return std::make_unique<State>();
}

// In the order in which Python's classes name their defaults.

void adamw_options(OptionFields& fields, OptimizerOptions& base) {
  auto& options = as<torch::optim::AdamWOptions>(base);
  fields.real("lr", options.lr());
  fields.reals("betas", options.betas());
  fields.real("eps", options.eps());
  fields.real("weight_decay", options.weight_decay());
  fields.flag("amsgrad", options.amsgrad());
  fields.only("maximize", false);
  fields.any("foreach");
  fields.any_flag("capturable");
  fields.any_flag("differentiable");
  fields.any("fused");
  fields.only("decoupled_weight_decay", true);
}

void adamw_state(StateFields& fields, OptimizerParamState& base) {
  auto& state = as<torch::optim::AdamWParamState>(base);
  fields.step("step", state.step());
  fields.tensor("exp_avg", state.exp_avg(), true);
  fields.tensor("exp_avg_sq", state.exp_avg_sq(), true);
  fields.tensor("max_exp_avg_sq", state.max_exp_avg_sq(), false);
}

void sgd_options(OptionFields& fields, OptimizerOptions& base) {
  auto& options = as<torch::optim::SGDOptions>(base);
  fields.real("lr", options.lr());
  fields.real("momentum", options.momentum());
  fields.real("dampening", options.dampening());
  fields.real("weight_decay", options.weight_decay());
  fields.flag("nesterov", options.nesterov());
  fields.only("maximize", false);
  fields.any("foreach");
  fields.any_flag("differentiable");
  fields.any("fused");
}

void sgd_state(StateFields& fields, OptimizerParamState& base) {
  auto& state = as<torch::optim::SGDParamState>(base);
  fields.tensor("momentum_buffer", state.momentum_buffer(), false);
}

const std::array kCodecs{
    OptimizerCodec{&typeid(torch::optim::AdamW), adamw_options, adamw_state,
                   make<torch::optim::AdamWParamState>},
    OptimizerCodec{&typeid(torch::optim::SGD), sgd_options, sgd_state,
                   make<torch::optim::SGDParamState>},
};

}  // namespace

const OptimizerCodec& codec_of(const torch::optim::Optimizer& optimizer) {
  // The exact type: one derived from it may keep state that this would lose.
  for (const OptimizerCodec& codec : kCodecs) {
    if (*codec.optimizer == typeid(optimizer)) return codec;
  }
  throw Error(ErrorCode::unsupported_value, "collect or restore", "the optimizer",
              "optimizers of type " + c10::demangle(typeid(optimizer).name()) +
                  " are not supported, only AdamW and SGD");
}

}  // namespace ckptring::torch_state
