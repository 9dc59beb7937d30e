#include "torch/file_layout.h"

#include "plan/dtype.h"

namespace ckptring::torch_state {

std::uint64_t stride_bytes(const FileView& view, std::size_t dimension) {
  return static_cast<std::uint64_t>(view.strides[dimension]) * plan::element_size(view.dtype);
}

std::pair<std::uint64_t, std::uint64_t> byte_range(const FileView& view) {
  const std::uint64_t item = plan::element_size(view.dtype);
  std::uint64_t last = view.offset * item;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    last += static_cast<std::uint64_t>(view.sizes[d] - 1) * stride_bytes(view, d);
  }
  return {view.offset * item, last + item};
}

bool same_steps(const at::Tensor& target, const FileView& view) {
  if (target.is_conj() != view.conj || target.is_neg() != view.neg) return false;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    if (view.sizes[d] > 1 && view.strides[d] != target.stride(static_cast<std::int64_t>(d))) {
      return false;
    }
  }
  return true;
}

bool same_layout(const at::Tensor& target, const FileView& view) {
  return target.is_non_overlapping_and_dense() && same_steps(target, view);
}

std::byte* memory_of(const at::Tensor& target) {
  return static_cast<std::byte*>(target.storage().mutable_data()) +
         static_cast<std::uint64_t>(target.storage_offset()) * target.itemsize();
}

bool has_addresses(const at::Tensor& target) { return target.is_cpu() || target.is_cuda(); }

std::pair<std::uintptr_t, std::uintptr_t> memory_range(const at::Tensor& target) {
  std::int64_t last = target.storage_offset();
  for (std::int64_t d = 0; d < target.dim(); ++d) last += (target.size(d) - 1) * target.stride(d);
  const auto base = reinterpret_cast<std::uintptr_t>(target.storage().data());
  const std::size_t item = target.itemsize();
  return {base + static_cast<std::uintptr_t>(target.storage_offset()) * item,
          base + (static_cast<std::uintptr_t>(last) + 1) * item};
}

}  // namespace ckptring::torch_state
