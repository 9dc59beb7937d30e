// How a tensor says that it may change as soon as `save` has returned.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

namespace ckptring::torch_state {

/// An alias of a defined tensor that says so; the tensor itself is left as it is.
at::Tensor marked_volatile(const at::Tensor& tensor);

/// Whether the tensor is such an alias, or was detached from one.
bool is_volatile(const c10::TensorImpl& tensor);

}  // namespace ckptring::torch_state
