// Torch's element types as the file format names them.
#pragma once

#include "plan/dtype.h"

#include <c10/core/ScalarType.h>

#include <optional>

namespace ckptring::torch_state {

/// Nothing for types that a checkpoint cannot hold: the quantized ones.
std::optional<plan::DType> to_dtype(c10::ScalarType type) noexcept;
c10::ScalarType to_scalar_type(plan::DType dtype) noexcept;

}  // namespace ckptring::torch_state
