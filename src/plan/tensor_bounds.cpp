#include "plan/tensor_bounds.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace ckptring::plan {

std::uint64_t tensor_bytes(DType dtype, std::span<const std::int64_t> sizes) noexcept {
  std::uint64_t bytes = element_size(dtype);
  for (const std::int64_t size : sizes) bytes *= static_cast<std::uint64_t>(size);
  return bytes;
}

std::string shape_words(std::span<const std::int64_t> sizes) {
  constexpr std::size_t kLongest = 32;
  if (sizes.size() <= kLongest) return fmt::format("[{}]", fmt::join(sizes, ", "));
  return fmt::format("[{}, ...: {} dimensions]", fmt::join(sizes.first(kLongest), ", "),
                     sizes.size());
}

std::optional<std::string> tensor_problem(const TensorShape& tensor) {
  if (tensor.sizes.size() != tensor.strides.size()) {
    return fmt::format("it has {} sizes and {} strides", tensor.sizes.size(),
                       tensor.strides.size());
  }
  if (tensor.offset < 0) return fmt::format("its offset is {}", tensor.offset);
  if (tensor.conj && !is_complex(tensor.dtype)) {
    return fmt::format("it is {} and conjugated", name(tensor.dtype));
  }
  if (tensor.neg && tensor.dtype == DType::boolean) return "it is bool and negated";
  if (tensor.requires_grad && !is_complex(tensor.dtype) && !is_floating(tensor.dtype)) {
    return fmt::format("it is {} and requires a gradient", name(tensor.dtype));
  }

  // Signed, as those who index with it will do.
  std::int64_t bytes = element_size(tensor.dtype);
  std::int64_t last = tensor.offset;  // index of the last element
  bool overflow = false;
  const bool empty = std::find(tensor.sizes.begin(), tensor.sizes.end(), 0) != tensor.sizes.end();
  for (std::size_t i = 0; i < tensor.sizes.size(); ++i) {
    const std::int64_t size = tensor.sizes[i];
    const std::int64_t stride = tensor.strides[i];
    if (size < 0) return fmt::format("its size {} is {}", i, size);
    if (stride < 0) return fmt::format("its stride {} is {}", i, stride);
    if (empty) continue;
    std::int64_t reach = 0;
    overflow = overflow || __builtin_mul_overflow(bytes, size, &bytes) ||
               __builtin_mul_overflow(size - 1, stride, &reach) ||
               __builtin_add_overflow(last, reach, &last);
  }
  if (overflow) return "its size overflows 64 bits";
  if (empty) return std::nullopt;
  const std::uint64_t elements = tensor.storage_bytes / element_size(tensor.dtype);
  if (static_cast<std::uint64_t>(last) >= elements) {
    return fmt::format("its last element is number {} of a storage of {}", last, elements);
  }
  return std::nullopt;
}

}  // namespace ckptring::plan
