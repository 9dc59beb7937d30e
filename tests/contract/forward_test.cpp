// What a forward pass writes is saved as it was when `save` was called, though the pass runs before
// `staged` or `fence`: in the order that the documents teach.
#include <ckptring/training_state.h>
#include <torch/nn.h>
#include <torch/optim/adamw.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "contract/contract.h"
#include "contract/states.h"
#include "support/moved_state.h"

namespace ckptring::test {
namespace {

/// libtorch's batch_norm on buffers of a module's own, of more bytes than a small storage has. Its
/// weight comes before them in the file, and is larger than the ring.
struct WideStatisticsImpl : torch::nn::Module {
  static constexpr std::int64_t kFeatures = 1 << 15;
  WideStatisticsImpl() {
    weight = register_parameter("weight", at::ones({16, kFeatures}));
    mean = register_buffer("mean", at::zeros({kFeatures}));
    variance = register_buffer("variance", at::ones({kFeatures}));
  }
  // Not const: libtorch wants it so.  NOLINTNEXTLINE(readability-make-member-function-const)
  at::Tensor forward(const at::Tensor& input) {
    namespace functional = torch::nn::functional;
    return functional::batch_norm(input.mm(weight), mean, variance,
                                  functional::BatchNormFuncOptions().training(true));
  }
  at::Tensor weight;
  at::Tensor mean;
  at::Tensor variance;
};
TORCH_MODULE(WideStatistics);

using Inputs = std::function<at::Tensor(std::int64_t step)>;

at::Tensor waves(c10::IntArrayRef sizes, std::int64_t step) {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) elements *= size;
  return at::arange(elements, c10::kFloat).view(sizes).add(step).sin();
}

class Forward : public Contract {
 protected:
  /// Trains in the documented order, and expects that each save holds what was there when it began.
  void trains(torch::nn::Sequential model, const Inputs& inputs) {
    model->to(training_device());
    torch::optim::AdamW optimizer(model->parameters());
    auto* const async = dynamic_cast<AsyncCheckpointer*>(checkpointer.get());
    if (async != nullptr) async->ready();
    std::optional<SaveHandle> save;
    StateDict expected = make_state_dict();
    std::optional<Stopped> nothing_drained;
    for (std::int64_t step = 0; step < 6; ++step) {
      const at::Tensor loss = model->forward(inputs(step).to(training_device())).pow(2).mean();
      optimizer.zero_grad();
      loss.backward();
      nothing_drained.reset();
      if (save) before_step(*save);
      optimizer.step();
      if (save) {
        ASSERT_NO_THROW(save->written.get()) << "save before step " << step;
        expect_equal(expected, checkpointer->load(directory / "it").state, "state");
      }
      const StateDict state =
          dict({{"model", collect_module(*model)}, {"optimizer", collect_optimizer(optimizer)}});
      expected = copy_of(state);
      // The state is larger than the ring, so it cannot be staged before the pass has run.
      if (async != nullptr) nothing_drained.emplace(*async);
      save = checkpointer->save(directory / "it", state);
    }
    nothing_drained.reset();
    save->written.wait();
  }

 private:
  /// On the host, with storages of its own.
  static StateDict copy_of(const StateDict& state) { return moved_to(to_host(state), {c10::kCPU}); }
};
CKPTRING_ALL_PATHS(Forward);

TEST_P(Forward, OfBatchNormRunsBeforeTheStateIsStaged) {
  trains(torch::nn::Sequential(torch::nn::Linear(16, 512), torch::nn::BatchNorm1d(512),
                               torch::nn::Linear(512, 256)),
         [](std::int64_t step) {
           return waves({8, 16}, step);
         });
}

TEST_P(Forward, OfStatisticsThatRaiseNoVersionRunsBeforeTheStateIsStaged) {
  trains(torch::nn::Sequential(WideStatistics()), [](std::int64_t step) {
    return waves({4, 16}, step);
  });
}

TEST_P(Forward, OfInstanceNormWithStatisticsRunsBeforeTheStateIsStaged) {
  trains(torch::nn::Sequential(
             torch::nn::Linear(256, 512),
             torch::nn::InstanceNorm1d(torch::nn::InstanceNormOptions(4).track_running_stats(true)),
             torch::nn::Linear(512, 256)),
         [](std::int64_t step) {
           return waves({2, 4, 256}, step);
         });
}

TEST_P(Forward, OfAnEmbeddingThatScalesItsWeightDownRunsBeforeTheStateIsStaged) {
  trains(torch::nn::Sequential(
             torch::nn::Embedding(torch::nn::EmbeddingOptions(3000, 64).max_norm(0.5)),
             torch::nn::Linear(64, 8)),
         [](std::int64_t step) {
           return at::arange(500 * step, 500 * (step + 1), c10::kLong).remainder(3000);
         });
}

/// What each layer of libtorch writes in its forward pass, and what `collect_module` declares.
class Layers : public testing::Test {};

struct Layer {
  std::string name;
  std::shared_ptr<torch::nn::Module> module;
  std::function<void()> forward;
};

template <class Holder, class... Inputs>
Layer layer(const std::string& name, Holder holder, Inputs... inputs) {
  return {name, holder.ptr(), [=]() mutable { (void)holder->forward(inputs...); }};
}

std::vector<Layer> all_layers_with_state() {
  namespace nn = torch::nn;
  const auto x = [](const std::vector<std::int64_t>& sizes) { return waves(sizes, 1).mul(3); };
  const at::Tensor words = at::arange(6, c10::kLong).view({2, 3});
  return {
      layer("Linear", nn::Linear(4, 3), x({2, 4})),
      layer("Bilinear", nn::Bilinear(4, 3, 2), x({2, 4}), x({2, 3})),
      layer("Conv1d", nn::Conv1d(4, 2, 2), x({2, 4, 5})),
      layer("Conv2d", nn::Conv2d(4, 2, 2), x({2, 4, 5, 5})),
      layer("Conv3d", nn::Conv3d(4, 2, 2), x({2, 4, 5, 5, 5})),
      layer("ConvTranspose1d", nn::ConvTranspose1d(4, 2, 2), x({2, 4, 5})),
      layer("ConvTranspose2d", nn::ConvTranspose2d(4, 2, 2), x({2, 4, 5, 5})),
      layer("ConvTranspose3d", nn::ConvTranspose3d(4, 2, 2), x({2, 4, 5, 5, 5})),
      layer("BatchNorm1d", nn::BatchNorm1d(4), x({2, 4, 5})),
      layer("BatchNorm2d", nn::BatchNorm2d(4), x({2, 4, 5, 5})),
      layer("BatchNorm3d", nn::BatchNorm3d(4), x({2, 4, 5, 5, 5})),
      layer("BatchNorm1d without momentum",
            nn::BatchNorm1d(nn::BatchNormOptions(4).momentum(std::nullopt)), x({2, 4, 5})),
      layer("InstanceNorm1d",
            nn::InstanceNorm1d(nn::InstanceNormOptions(4).affine(true).track_running_stats(true)),
            x({2, 4, 5})),
      layer("InstanceNorm2d",
            nn::InstanceNorm2d(nn::InstanceNormOptions(4).affine(true).track_running_stats(true)),
            x({2, 4, 5, 5})),
      layer("InstanceNorm3d",
            nn::InstanceNorm3d(nn::InstanceNormOptions(4).affine(true).track_running_stats(true)),
            x({2, 4, 5, 5, 5})),
      layer("LayerNorm", nn::LayerNorm(nn::LayerNormOptions({5})), x({2, 4, 5})),
      layer("GroupNorm", nn::GroupNorm(2, 4), x({2, 4, 5})),
      layer("Embedding", nn::Embedding(6, 4), words),
      layer("Embedding with max_norm", nn::Embedding(nn::EmbeddingOptions(6, 4).max_norm(0.1)),
            words),
      layer("EmbeddingBag", nn::EmbeddingBag(6, 4), words),
      layer("EmbeddingBag with max_norm",
            nn::EmbeddingBag(nn::EmbeddingBagOptions(6, 4).max_norm(0.1)), words),
      layer("PReLU", nn::PReLU(nn::PReLUOptions().num_parameters(4)), x({2, 4, 5})),
      layer("RNN", nn::RNN(4, 3), x({2, 5, 4})),
      layer("LSTM", nn::LSTM(4, 3), x({2, 5, 4})),
      layer("GRU", nn::GRU(4, 3), x({2, 5, 4})),
      layer("RNNCell", nn::RNNCell(4, 3), x({2, 4})),
      layer("LSTMCell", nn::LSTMCell(4, 3), x({2, 4})),
      layer("GRUCell", nn::GRUCell(4, 3), x({2, 4})),
      layer("MultiheadAttention", nn::MultiheadAttention(4, 2), x({2, 5, 4}), x({2, 5, 4}),
            x({2, 5, 4})),
      layer("TransformerEncoderLayer", nn::TransformerEncoderLayer(4, 2), x({2, 5, 4})),
      layer("TransformerDecoderLayer", nn::TransformerDecoderLayer(4, 2), x({2, 5, 4}),
            x({2, 5, 4})),
      layer(
          "Transformer",
          nn::Transformer(nn::TransformerOptions(4, 2).num_encoder_layers(1).num_decoder_layers(1)),
          x({2, 5, 4}), x({2, 5, 4})),
      layer("AdaptiveLogSoftmaxWithLoss",
            nn::AdaptiveLogSoftmaxWithLoss(4, 6, std::vector<std::int64_t>{3}), x({2, 4}),
            at::arange(2, c10::kLong)),
      layer("FractionalMaxPool2d",
            nn::FractionalMaxPool2d(nn::FractionalMaxPool2dOptions(2).output_size(2)),
            x({2, 4, 5, 5})),
      layer("FractionalMaxPool3d",
            nn::FractionalMaxPool3d(nn::FractionalMaxPool3dOptions(2).output_size(2)),
            x({2, 4, 5, 5, 5})),
  };
}

TEST_F(Layers, WriteNothingInForwardThatIsNotDeclaredVolatile) {
  std::size_t that_write = 0;
  for (const Layer& one : all_layers_with_state()) {
    one.module->train();
    CheckpointerConfig nothing_but_declared = small_ring();
    nothing_but_declared.staging_config.capture_small_bytes = 0;
    const auto checkpointer = make_async_checkpointer(nothing_but_declared);
    const auto declared = checkpointer->prepare(collect_module(*one.module)).captured_keys;
    const StateDict before = moved_to(collect_module(*one.module), {c10::kCPU});
    one.forward();
    bool writes = false;
    for (const auto& entry : collect_module(*one.module)) {
      const std::string key = entry.key().toStringRef();
      if (bits(entry.value().toTensor()) == bits(tensor_at(before, key))) continue;
      writes = true;
      EXPECT_TRUE(std::find(declared.begin(), declared.end(), key) != declared.end())
          << one.name << " writes to " << key;
    }
    that_write += writes ? 1 : 0;
  }
  // Else the test would not see any: BatchNorm (4), InstanceNorm (3), embeddings with max_norm (2).
  EXPECT_EQ(that_write, 9u);
}

}  // namespace
}  // namespace ckptring::test
