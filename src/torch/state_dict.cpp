#include "torch/volatile_mark.h"

#include <ckptring/state_dict.h>

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>

namespace ckptring {

StateDict make_state_dict() { return StateDict(c10::AnyType::get(), c10::AnyType::get()); }

at::Tensor declare_volatile(const at::Tensor& tensor) {
  return tensor.defined() ? torch_state::marked_volatile(tensor) : tensor;
}

c10::impl::GenericList make_state_list() { return c10::impl::GenericList(c10::AnyType::get()); }

}  // namespace ckptring
