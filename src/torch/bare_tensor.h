// Tensors as memory with a shape. Whatever else hangs on a tensor of the state (autograd, inference
// mode, names, its class) has a say in libtorch's own copies; moving its bytes is no business of
// theirs.
#pragma once

#include "plan/dtype.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <optional>
#include <string>

namespace ckptring::torch_state {

/// Why it is no strided view of a storage, in words that follow "it is": sparse, quantized, nested,
/// its sizes cannot be asked. Nothing if it is.
/// @throws c10::Error what libtorch refuses to say
std::optional<std::string> why_no_view(const at::Tensor& tensor);

/// Why it has no memory that bytes could be read from, in words that follow "it is": no
/// view of a storage, on the meta device, reaching beyond its storage.
/// Nothing if it has. Asks for nothing that libtorch may refuse.
std::optional<std::string> why_not_readable(const at::Tensor& tensor);

/// The same for memory that bytes can be written to. Memory that is shared until it is written to
/// (lazy clones) becomes the tensor's own by this.
std::optional<std::string> why_not_fillable(const at::Tensor& tensor);

/// A tensor over a storage, without looking at the storage's contents. Offset in elements.
at::Tensor view_of_storage(const c10::Storage& storage, c10::ScalarType type, std::int64_t offset,
                           c10::IntArrayRef sizes, c10::IntArrayRef strides);

/// An integer type of the same size: copying is moving bits, whatever they mean.
c10::ScalarType carrier(std::size_t element_size);

/// The tensor's dtype as files have it; where they have none such, its carrier's.
plan::DType dtype_or_carrier(const at::Tensor& tensor);

/// The tensor's memory as integers.
at::Tensor bits_of(const at::Tensor& tensor);
/// The tensor's memory as its values: dtype, conjugate and negative bit.
at::Tensor values_of(const at::Tensor& tensor);

/// Whether values have to be conjugated or negated on their way from one to the other.
bool differ_in_lazy_bits(const at::Tensor& a, const at::Tensor& b);
/// Why libtorch cannot do that, in its own words. Nothing if it can, or need not.
std::optional<std::string> why_not_resolved(const at::Tensor& target, bool conj, bool neg);

/// Tells autograd that the memory has changed.
void bump_version(const at::Tensor& tensor);

}  // namespace ckptring::torch_state
