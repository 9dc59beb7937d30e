#include "torch/libtorch_error.h"
#include "torch/volatile_mark.h"

#include <ckptring/state_dict.h>

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>

namespace ckptring {

StateDict make_state_dict() { return StateDict(c10::AnyType::get(), c10::AnyType::get()); }

at::Tensor declare_volatile(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return torch_state::in_own_words(ErrorCode::unsupported_value, "declare volatile", "the tensor",
                                   [&] { return torch_state::marked_volatile(tensor); });
}

c10::impl::GenericList make_state_list() { return c10::impl::GenericList(c10::AnyType::get()); }

}  // namespace ckptring
