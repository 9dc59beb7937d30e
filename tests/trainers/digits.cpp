#include "trainers/training.h"

#include <ckptring/training_state.h>
#include <torch/torch.h>

#include <vector>

namespace ckptring::test {
namespace {

struct NetImpl : torch::nn::Module {
  NetImpl()
      : first(torch::nn::Conv2dOptions(1, 10, 5)),
        second(torch::nn::Conv2dOptions(10, 20, 5)),
        hidden(320, 50),
        last(50, 10) {
    register_module("first", first);
    register_module("second", second);
    register_module("drop", drop);
    register_module("hidden", hidden);
    register_module("last", last);
  }
  at::Tensor forward(at::Tensor x) {
    x = torch::relu(torch::max_pool2d(first->forward(x), 2));
    x = torch::relu(torch::max_pool2d(drop->forward(second->forward(x)), 2));
    x = torch::relu(hidden->forward(x.view({-1, 320})));
    return torch::log_softmax(last->forward(torch::dropout(x, 0.5, is_training())), 1);
  }
  torch::nn::Conv2d first;
  torch::nn::Conv2d second;
  torch::nn::Dropout2d drop;
  torch::nn::Linear hidden;
  torch::nn::Linear last;
};
TORCH_MODULE(Net);

constexpr std::int64_t kImages = 300;

/// Ten patterns of waves, each image with some of its own.
at::Tensor images() {
  const at::Tensor pixels = torch::arange(28 * 28, torch::kFloat).view({1, 1, 28, 28});
  const at::Tensor number = torch::arange(kImages, torch::kFloat).view({-1, 1, 1, 1});
  return torch::sin(pixels * (number.remainder(10) + 1) / 17) + 0.3 * torch::cos(pixels * number);
}

class Digits final : public Training {
 public:
  double step(const std::function<void()>& before_update) override {
    const at::Tensor chosen = order_.next(32);
    const at::Tensor loss =
        torch::nll_loss(net_->forward(images_.index_select(0, chosen)), chosen.remainder(10));
    optimizer_.zero_grad();
    loss.backward();
    before_update();
    optimizer_.step();
    return loss.item<double>();
  }

  [[nodiscard]] StateDict collect() const override {
    StateDict state = make_state_dict();
    state.insert_or_assign("net", collect_module(*net_));
    state.insert_or_assign("optimizer", collect_optimizer(optimizer_));
    state.insert_or_assign("order", order_.collect());
    return state;
  }

  void restore(const StateDict& state) override {
    restore_module(*net_, state.at("net").toGenericDict());
    restore_optimizer(optimizer_, state.at("optimizer").toGenericDict());
    order_.restore(state.at("order").toGenericDict());
  }

 private:
  Net net_;
  torch::optim::SGD optimizer_{net_->parameters(), torch::optim::SGDOptions(0.01).momentum(0.5)};
  ShuffledOrder order_{kImages};
  at::Tensor images_ = images();
};

}  // namespace

std::unique_ptr<Training> make_digits() { return std::make_unique<Digits>(); }

}  // namespace ckptring::test
