#include "torch/bare_tensor.h"

#include "plan/tensor_bounds.h"
#include "torch/dtype_map.h"
#include "torch/libtorch_error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <cstddef>

namespace ckptring::torch_state {
namespace {

/// Whether all elements lie in the tensor's storage. It may have been shrunk under its tensors.
bool fits(const at::Tensor& tensor) {
  return !plan::tensor_problem({.dtype = dtype_or_carrier(tensor),
                                .storage_bytes = tensor.storage().nbytes(),
                                .offset = tensor.storage_offset(),
                                .sizes = {tensor.sizes().data(), tensor.sizes().size()},
                                .strides = {tensor.strides().data(), tensor.strides().size()}});
}

std::optional<std::string> why_not(const at::Tensor& tensor, bool write) {
  if (auto why = why_no_view(tensor)) return why;
  if (tensor.is_meta()) return "on the meta device, without memory";
  if (!fits(tensor)) {
    return fmt::format("reaching beyond its storage of {} bytes", tensor.storage().nbytes());
  }
  if (tensor.numel() == 0) return std::nullopt;
  const void* const memory = write ? tensor.storage().mutable_data() : tensor.storage().data();
  if (memory == nullptr) return "without memory of its own";
  return std::nullopt;
}

std::optional<std::string> why_not_or_refused(const at::Tensor& tensor, bool write) {
  try {
    return why_not(tensor, write);
  } catch (const c10::Error& failure) {
    if (is_out_of_memory(failure)) throw;
    return "one that libtorch tells nothing of: " + words_of(failure);
  }
}

}  // namespace

std::optional<std::string> why_no_view(const at::Tensor& tensor) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (impl.layout() != c10::kStrided) return fmt::format("of layout {}", c10::str(impl.layout()));
  if (tensor.is_quantized()) return "quantized";
  if (tensor.is_nested()) return "nested";
  if (impl.has_symbolic_sizes_strides()) return "of symbolic sizes";
  if (!impl.has_storage() || tensor._is_zerotensor()) return "without memory of its own";
  return std::nullopt;
}

std::optional<std::string> why_not_readable(const at::Tensor& tensor) {
  return why_not_or_refused(tensor, false);
}
std::optional<std::string> why_not_fillable(const at::Tensor& tensor) {
  return why_not_or_refused(tensor, true);
}

at::Tensor view_of_storage(const c10::Storage& storage, c10::ScalarType type, std::int64_t offset,
                           c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  const auto options = at::TensorOptions().dtype(type).device(storage.device());
  return at::empty({0}, options).set_(storage, offset, sizes, strides);
}

c10::ScalarType carrier(std::size_t element_size) {
  switch (element_size) {
    case 1:
      return c10::kByte;
    case 2:
      return c10::kShort;
    case 4:
      return c10::kInt;
    case 8:
      return c10::kLong;
    default:
      return c10::kComplexDouble;
  }
}

plan::DType dtype_or_carrier(const at::Tensor& tensor) {
  if (const auto dtype = to_dtype(tensor.scalar_type())) return *dtype;
  return *to_dtype(carrier(tensor.itemsize()));
}

at::Tensor bits_of(const at::Tensor& tensor) {
  return view_of_storage(tensor.storage(), carrier(tensor.itemsize()), tensor.storage_offset(),
                         tensor.sizes(), tensor.strides());
}

at::Tensor values_of(const at::Tensor& tensor) {
  at::Tensor made = view_of_storage(tensor.storage(), tensor.scalar_type(), tensor.storage_offset(),
                                    tensor.sizes(), tensor.strides());
  if (tensor.is_conj()) made.unsafeGetTensorImpl()->_set_conj(true);
  if (tensor.is_neg()) made.unsafeGetTensorImpl()->_set_neg(true);
  return made;
}

bool differ_in_lazy_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.is_conj() != b.is_conj() || a.is_neg() != b.is_neg();
}

std::optional<std::string> why_not_resolved(const at::Tensor& target, bool conj, bool neg) {
  if (target.is_conj() == conj && target.is_neg() == neg) return std::nullopt;
  const at::NoGradGuard no_grad;
  const auto one = [&](const at::TensorOptions& options, bool set_conj, bool set_neg) {
    at::Tensor made = at::zeros({1}, options);
    made.unsafeGetTensorImpl()->_set_conj(set_conj);
    made.unsafeGetTensorImpl()->_set_neg(set_neg);
    return made;
  };
  try {
    const auto options = at::TensorOptions().dtype(target.scalar_type());
    one(options.device(target.device()), target.is_conj(), target.is_neg())
        .copy_(one(options, conj, neg));
  } catch (const c10::Error& failure) {
    if (is_out_of_memory(failure)) throw;
    return words_of(failure);
  }
  return std::nullopt;
}

void bump_version(const at::Tensor& tensor) {
  // Inference tensors have no version counter.
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace ckptring::torch_state
