// Where a tensor's elements lie: in a record, and in its own memory.
#pragma once

#include "torch/fill_plan.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace ckptring::torch_state {

std::uint64_t stride_bytes(const FileView& view, std::size_t dimension);

/// First byte of a view in its record, and the one behind its last. Bounds were checked with the
/// record.
std::pair<std::uint64_t, std::uint64_t> byte_range(const FileView& view);

/// Whether the elements lie in the target's memory as far apart as in the file, and as they are
/// there: neither is conjugated or negated where the other is not.
bool same_steps(const at::Tensor& target, const FileView& view);

/// The same, without gaps.
bool same_layout(const at::Tensor& target, const FileView& view);

/// The first element's address.
std::byte* memory_of(const at::Tensor& target);

/// Whether the target lies in host memory or on a CUDA device, which have their addresses in
/// common.
bool has_addresses(const at::Tensor& target);

/// Addresses that writing the target may touch: the first, and the one behind the last. Only for
/// those that have some.
std::pair<std::uintptr_t, std::uintptr_t> memory_range(const at::Tensor& target);

}  // namespace ckptring::torch_state
