#include "trainers/training.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace ckptring::test {

ShuffledOrder::ShuffledOrder(std::int64_t size)
    : permutation_(at::randperm(size, at::TensorOptions().dtype(at::kLong))) {}

at::Tensor ShuffledOrder::next(std::int64_t count) {
  const std::int64_t size = permutation_.numel();
  if (position_ == size) {
    permutation_ = at::randperm(size, permutation_.options());
    position_ = 0;
  }
  const std::int64_t end = std::min(position_ + count, size);
  at::Tensor chosen = permutation_.slice(0, position_, end);
  position_ = end;
  return chosen;
}

StateDict ShuffledOrder::collect() const {
  StateDict state = make_state_dict();
  state.insert_or_assign("permutation", permutation_);
  state.insert_or_assign("position", position_);
  return state;
}

void ShuffledOrder::restore(const StateDict& state) {
  permutation_ = state.at("permutation").toTensor();
  position_ = state.at("position").toInt();
}

}  // namespace ckptring::test
