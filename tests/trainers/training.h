// Small training runs in the manner of public ones: what they hold, how they make a step, and what
// is saved of them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ckptring/state_dict.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace ckptring::test {

class Training {
 public:
  virtual ~Training() = default;
  /// Makes a step, and calls `before_update` before the first parameter changes. @return the loss
  virtual double step(const std::function<void()>& before_update) = 0;
  /// Everything that the next steps depend on, but for the random numbers.
  [[nodiscard]] virtual StateDict collect() const = 0;
  virtual void restore(const StateDict& state) = 0;
};

/// A convolutional classifier with dropout and SGD, on shuffled images.
std::unique_ptr<Training> make_digits();
/// A generator and a discriminator, both with batch norm and an AdamW of their own.
std::unique_ptr<Training> make_gan();
/// An LSTM with AdamW that reads a text from end to end, its hidden state carried along.
std::unique_ptr<Training> make_language_model();

/// The numbers below `size`, shuffled anew in each epoch.
class ShuffledOrder {
 public:
  explicit ShuffledOrder(std::int64_t size);
  /// The next `count` of them, or fewer at the end of an epoch.
  at::Tensor next(std::int64_t count);
  [[nodiscard]] StateDict collect() const;
  void restore(const StateDict& state);

 private:
  at::Tensor permutation_;
  std::int64_t position_ = 0;
};

}  // namespace ckptring::test
