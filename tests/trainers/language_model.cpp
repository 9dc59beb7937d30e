#include "trainers/training.h"

#include <ckptring/training_state.h>
#include <torch/torch.h>

#include <string>
#include <tuple>
#include <vector>

namespace ckptring::test {
namespace {

constexpr std::int64_t kWords = 60;
constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kTogether = 12;  ///< words that a step reads of each line

struct LanguageModelImpl : torch::nn::Module {
  LanguageModelImpl()
      : embedding(torch::nn::EmbeddingOptions(kWords, 32).max_norm(1)),
        lstm(torch::nn::LSTMOptions(32, kHidden).batch_first(true)),
        last(kHidden, kWords) {
    register_module("embedding", embedding);
    register_module("lstm", lstm);
    register_module("last", last);
  }
  torch::nn::Embedding embedding;
  torch::nn::LSTM lstm;
  torch::nn::Linear last;
};
TORCH_MODULE(LanguageModel);

/// One line for each of the batch; each word has to do with those before it.
at::Tensor text() {
  std::vector<std::int64_t> words{1, 2};
  for (std::int64_t i = 2; i < kBatch * 500; ++i) {
    words.push_back((3 * words[static_cast<std::size_t>(i - 1)] +
                     5 * words[static_cast<std::size_t>(i - 2)] + i % 7) %
                    kWords);
  }
  return torch::tensor(words, torch::kLong).view({kBatch, -1});
}

class Reader final : public Training {
 public:
  double step(const std::function<void()>& before_update) override {
    if (position_ + kTogether + 1 > text_.size(1)) {
      position_ = 0;
      hidden_.zero_();
      cell_.zero_();
    }
    const at::Tensor inputs = text_.slice(1, position_, position_ + kTogether);
    const at::Tensor targets = text_.slice(1, position_ + 1, position_ + kTogether + 1);
    const auto [output, state] =
        model_->lstm->forward(model_->embedding->forward(inputs), std::make_tuple(hidden_, cell_));
    const at::Tensor loss = torch::nn::functional::cross_entropy(
        model_->last->forward(output).reshape({-1, kWords}), targets.reshape({-1}));
    optimizer_.zero_grad();
    loss.backward();
    before_update();
    torch::nn::utils::clip_grad_norm_(model_->parameters(), 0.5);
    optimizer_.step();
    hidden_ = std::get<0>(state).detach();
    cell_ = std::get<1>(state).detach();
    position_ += kTogether;
    return loss.item<double>();
  }

  [[nodiscard]] StateDict collect() const override {
    StateDict state = make_state_dict();
    state.insert_or_assign("model", collect_module(*model_));
    state.insert_or_assign("optimizer", collect_optimizer(optimizer_));
    state.insert_or_assign("hidden", declare_volatile(hidden_));
    state.insert_or_assign("cell", declare_volatile(cell_));
    state.insert_or_assign("position", position_);
    return state;
  }

  void restore(const StateDict& state) override {
    restore_module(*model_, state.at("model").toGenericDict());
    restore_optimizer(optimizer_, state.at("optimizer").toGenericDict());
    hidden_ = state.at("hidden").toTensor();
    cell_ = state.at("cell").toTensor();
    position_ = state.at("position").toInt();
  }

 private:
  LanguageModel model_;
  torch::optim::AdamW optimizer_{model_->parameters(), torch::optim::AdamWOptions(2e-3)};
  at::Tensor text_ = text();
  at::Tensor hidden_ = torch::zeros({1, kBatch, kHidden});
  at::Tensor cell_ = torch::zeros({1, kBatch, kHidden});
  std::int64_t position_ = 0;
};

}  // namespace

std::unique_ptr<Training> make_language_model() { return std::make_unique<Reader>(); }

}  // namespace ckptring::test
