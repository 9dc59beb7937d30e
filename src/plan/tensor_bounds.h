// Whether a tensor lies in its storage.
#pragma once

#include "plan/value.h"

#include <cstdint>
#include <optional>
#include <string>

namespace ckptring::plan {

/// Bytes of the tensor's elements, each counted once per index. The tensor passed tensor_problem.
std::uint64_t tensor_bytes(const Tensor& tensor) noexcept;

/// What is wrong with offset, sizes and strides, in words: negative numbers, overflow, elements
/// outside of the storage, a bit that the dtype cannot have. Nothing if all is well.
std::optional<std::string> tensor_problem(const Tensor& tensor);

}  // namespace ckptring::plan
