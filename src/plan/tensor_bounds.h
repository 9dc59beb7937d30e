// Whether a tensor lies in its storage.
#pragma once

#include "plan/dtype.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace ckptring::plan {

/// A view of a storage. Offset, sizes and strides count elements.
struct TensorShape {
  DType dtype;
  std::uint64_t storage_bytes;
  std::int64_t offset;
  std::span<const std::int64_t> sizes;
  std::span<const std::int64_t> strides;
  bool conj = false;
  bool neg = false;
  bool requires_grad = false;
};

/// What is wrong with offset, sizes and strides, in words: negative numbers, overflow, elements
/// outside of the storage, a bit that the dtype cannot have. Nothing if all is well.
std::optional<std::string> tensor_problem(const TensorShape& tensor);

/// "[2, 3]". Shapes of files may be of any length: of long ones, the beginning and the length.
std::string shape_words(std::span<const std::int64_t> sizes);

/// Bytes of the elements, each counted once per index. The tensor has no problem.
std::uint64_t tensor_bytes(DType dtype, std::span<const std::int64_t> sizes) noexcept;

}  // namespace ckptring::plan
