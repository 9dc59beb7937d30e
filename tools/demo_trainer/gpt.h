// A small GPT that reads and predicts characters.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace demo {

struct GptShape {
  std::int64_t vocabulary = 0;  ///< number of different characters
  std::int64_t context = 128;   ///< characters seen at once
  std::int64_t layers = 6;
  std::int64_t heads = 6;
  std::int64_t width = 384;  ///< multiple of `heads`
  double dropout = 0.1;
};

class BlockImpl : public torch::nn::Module {
 public:
  explicit BlockImpl(const GptShape& shape)
      : heads_(shape.heads),
        attention_norm_(register_module(
            "attention_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({shape.width})))),
        query_key_value_(
            register_module("query_key_value", torch::nn::Linear(shape.width, 3 * shape.width))),
        projection_(register_module("projection", torch::nn::Linear(shape.width, shape.width))),
        feed_norm_(register_module(
            "feed_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({shape.width})))),
        widen_(register_module("widen", torch::nn::Linear(shape.width, 4 * shape.width))),
        narrow_(register_module("narrow", torch::nn::Linear(4 * shape.width, shape.width))),
        dropout_(register_module("dropout", torch::nn::Dropout(shape.dropout))) {}

  at::Tensor forward(at::Tensor x) {
    x = x + dropout_(attend(attention_norm_(x)));
    return x + dropout_(narrow_(torch::gelu(widen_(feed_norm_(x)))));
  }

 private:
  at::Tensor attend(const at::Tensor& x) {
    const auto batch = x.size(0);
    const auto length = x.size(1);
    const auto width = x.size(2);
    // (batch, length, 3, heads, width / heads) -> 3 x (batch, heads, length, width / heads)
    const auto parts = query_key_value_(x)
                           .view({batch, length, 3, heads_, width / heads_})
                           .permute({2, 0, 3, 1, 4});
    const auto mixed = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0,
                                                        /*is_causal=*/true);
    return projection_(mixed.transpose(1, 2).reshape({batch, length, width}));
  }

  std::int64_t heads_;
  torch::nn::LayerNorm attention_norm_;
  torch::nn::Linear query_key_value_;
  torch::nn::Linear projection_;
  torch::nn::LayerNorm feed_norm_;
  torch::nn::Linear widen_;
  torch::nn::Linear narrow_;
  torch::nn::Dropout dropout_;
};
TORCH_MODULE(Block);

class GptImpl : public torch::nn::Module {
 public:
  explicit GptImpl(const GptShape& shape)
      : characters_(
            register_module("characters", torch::nn::Embedding(shape.vocabulary, shape.width))),
        positions_(register_module("positions", torch::nn::Embedding(shape.context, shape.width))),
        dropout_(register_module("dropout", torch::nn::Dropout(shape.dropout))),
        blocks_(register_module("blocks", torch::nn::Sequential())),
        norm_(register_module("norm",
                              torch::nn::LayerNorm(torch::nn::LayerNormOptions({shape.width})))),
        head_(register_module("head", torch::nn::Linear(shape.width, shape.vocabulary))) {
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) blocks_->push_back(Block(shape));
    const torch::NoGradGuard no_grad;
    for (auto& parameter : named_parameters()) {
      if (parameter.value().dim() > 1) parameter.value().normal_(0, 0.02);
    }
  }

  /// @param x characters as indices, (batch, length), int64
  /// @return  scores of the character that follows each, (batch, length, vocabulary)
  at::Tensor forward(const at::Tensor& x) {
    const auto order = torch::arange(x.size(1), torch::kLong);
    return head_(norm_(blocks_->forward(dropout_(characters_(x) + positions_(order)))));
  }

 private:
  torch::nn::Embedding characters_;
  torch::nn::Embedding positions_;
  torch::nn::Dropout dropout_;
  torch::nn::Sequential blocks_;
  torch::nn::LayerNorm norm_;
  torch::nn::Linear head_;
};
TORCH_MODULE(Gpt);

}  // namespace demo
