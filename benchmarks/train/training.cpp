#include "train/training.h"

#include "demo_trainer/gpt.h"

#include <ckptring/training_state.h>

#include <ATen/Parallel.h>
#include <torch/torch.h>

namespace bench {
namespace {

demo::GptShape gpt_shape(const TrainingShape& shape) {
  demo::GptShape gpt;
  gpt.vocabulary = shape.vocabulary;
  gpt.context = shape.context;
  gpt.layers = shape.layers;
  gpt.heads = shape.heads;
  gpt.width = shape.width;
  return gpt;
}

/// Before any parameter is drawn.
const TrainingShape& seeded(const TrainingShape& shape) {
  at::set_num_threads(shape.threads);
  torch::manual_seed(shape.seed);
  return shape;
}

}  // namespace

struct Training::Parts {
  explicit Parts(const TrainingShape& wanted)
      : shape(seeded(wanted)),
        model(gpt_shape(shape)),
        optimizer(model->parameters(),
                  torch::optim::AdamWOptions(5e-4).betas({0.9, 0.99}).weight_decay(0.1)) {}

  TrainingShape shape;
  demo::Gpt model;
  torch::optim::AdamW optimizer;
  std::int64_t done = 0;
};

Training::Training(const TrainingShape& shape) : parts_(std::make_unique<Parts>(shape)) {}
Training::~Training() = default;

void Training::step(const std::function<void()>& before_update) {
  const auto& shape = parts_->shape;
  const at::Tensor tokens =
      torch::randint(shape.vocabulary, {2, shape.batch, shape.context}, torch::kLong);
  const at::Tensor scores = parts_->model->forward(tokens[0]);
  const at::Tensor loss =
      torch::nn::functional::cross_entropy(scores.flatten(0, 1), tokens[1].flatten());
  parts_->optimizer.zero_grad();
  loss.backward();
  // Until here the parameters were only read; now they change.
  before_update();
  parts_->optimizer.step();
  ++parts_->done;
  (void)loss.item<float>();
}

ckptring::StateDict Training::collect() const {
  ckptring::StateDict state = ckptring::make_state_dict();
  state.insert_or_assign("model", ckptring::collect_module(*parts_->model));
  state.insert_or_assign("optimizer", ckptring::collect_optimizer(parts_->optimizer));
  state.insert_or_assign("cpu_generator", ckptring::collect_cpu_generator());
  state.insert_or_assign("step", parts_->done);
  return state;
}

std::int64_t Training::parameters() const {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : parts_->model->parameters()) count += parameter.numel();
  return count;
}

}  // namespace bench
