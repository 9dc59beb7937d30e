#include "trainers/training.h"

#include <ckptring/training_state.h>
#include <torch/torch.h>

namespace ckptring::test {
namespace {

using torch::nn::BatchNorm2d;
using torch::nn::Conv2d;
using torch::nn::Conv2dOptions;
using torch::nn::ConvTranspose2d;
using torch::nn::ConvTranspose2dOptions;
using torch::nn::Sequential;

constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kNoise = 16;
constexpr std::int64_t kPictures = 100;

Sequential generator() {
  return Sequential(
      ConvTranspose2d(ConvTranspose2dOptions(kNoise, 64, 4).bias(false)), BatchNorm2d(64),
      torch::nn::ReLU(),
      ConvTranspose2d(ConvTranspose2dOptions(64, 32, 3).stride(2).padding(1).bias(false)),
      BatchNorm2d(32), torch::nn::ReLU(),
      ConvTranspose2d(ConvTranspose2dOptions(32, 1, 4).stride(2).padding(1)), torch::nn::Tanh());
}

Sequential discriminator() {
  return Sequential(Conv2d(Conv2dOptions(1, 32, 4).stride(2).padding(1).bias(false)),
                    torch::nn::LeakyReLU(torch::nn::LeakyReLUOptions().negative_slope(0.2)),
                    Conv2d(Conv2dOptions(32, 64, 3).stride(2).padding(1).bias(false)),
                    BatchNorm2d(64),
                    torch::nn::LeakyReLU(torch::nn::LeakyReLUOptions().negative_slope(0.2)),
                    Conv2d(Conv2dOptions(64, 1, 4)), torch::nn::Sigmoid());
}

class Gan final : public Training {
 public:
  double step(const std::function<void()>& before_update) override {
    const at::Tensor real = pictures_.index_select(0, order_.next(kBatch));
    const std::int64_t count = real.size(0);
    discriminator_->zero_grad();
    const at::Tensor real_loss = torch::binary_cross_entropy(
        discriminator_->forward(real).view({-1}), torch::empty({count}).uniform_(0.8, 1.0));
    real_loss.backward();
    const at::Tensor fake = generator_->forward(torch::randn({count, kNoise, 1, 1}));
    const at::Tensor fake_loss = torch::binary_cross_entropy(
        discriminator_->forward(fake.detach()).view({-1}), torch::zeros({count}));
    fake_loss.backward();
    // Both networks have run by now, and have written their running statistics.
    before_update();
    of_discriminator_.step();

    generator_->zero_grad();
    const at::Tensor loss =
        torch::binary_cross_entropy(discriminator_->forward(fake).view({-1}), torch::ones({count}));
    loss.backward();
    of_generator_.step();
    return (real_loss + fake_loss).item<double>() + 1e3 * loss.item<double>();
  }

  [[nodiscard]] StateDict collect() const override {
    StateDict state = make_state_dict();
    state.insert_or_assign("generator", collect_module(*generator_));
    state.insert_or_assign("discriminator", collect_module(*discriminator_));
    state.insert_or_assign("of_generator", collect_optimizer(of_generator_));
    state.insert_or_assign("of_discriminator", collect_optimizer(of_discriminator_));
    state.insert_or_assign("order", order_.collect());
    return state;
  }

  void restore(const StateDict& state) override {
    restore_module(*generator_, state.at("generator").toGenericDict());
    restore_module(*discriminator_, state.at("discriminator").toGenericDict());
    restore_optimizer(of_generator_, state.at("of_generator").toGenericDict());
    restore_optimizer(of_discriminator_, state.at("of_discriminator").toGenericDict());
    order_.restore(state.at("order").toGenericDict());
  }

 private:
  static torch::optim::AdamWOptions options() {
    return torch::optim::AdamWOptions(2e-4).betas({0.5, 0.999}).weight_decay(0);
  }

  Sequential generator_ = generator();
  Sequential discriminator_ = discriminator();
  torch::optim::AdamW of_generator_{generator_->parameters(), options()};
  torch::optim::AdamW of_discriminator_{discriminator_->parameters(), options()};
  ShuffledOrder order_{kPictures};
  at::Tensor pictures_ = torch::sin(torch::arange(kPictures * 14 * 14, torch::kFloat) / 9)
                             .view({kPictures, 1, 14, 14});
};

}  // namespace

std::unique_ptr<Training> make_gan() { return std::make_unique<Gan>(); }

}  // namespace ckptring::test
