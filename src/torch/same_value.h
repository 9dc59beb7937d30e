// Whether two places of a file hold the same.
#pragma once

#include "plan/value.h"

#include <vector>

namespace ckptring::torch_state {

/// Two tensors that are alike, and lie in different places of the file.
struct TensorPair {
  plan::Tensor first;
  plan::Tensor second;
};

/// Whether the values are the same: numbers bit for bit, containers item by item, dicts in any
/// order. Tensors are alike in dtype and shape; where it takes their bytes to know, they are added
/// to `tensors`.
bool same_value(const plan::Value& first, const plan::Value& second,
                std::vector<TensorPair>& tensors);

}  // namespace ckptring::torch_state
