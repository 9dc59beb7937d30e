#include "base/out_of_memory.h"
#include "torch/libtorch_error.h"
#include "torch/volatile_mark.h"

#include <ckptring/torch/state_dict.h>

#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>

#include <cstddef>
#include <new>

namespace ckptring {

StateDict make_state_dict() {
  // Libtorch's dict allocates where it must not throw: it ends the process if it gets nothing. So
  // it is asked first whether there is something. (As calls, which no compiler leaves out.)
  constexpr std::size_t kMoreThanADictTakes = 4096;
  return base::or_out_of_memory("make a dict", "", [] {
    ::operator delete(::operator new(kMoreThanADictTakes));
    return StateDict(c10::AnyType::get(), c10::AnyType::get());
  });
}

at::Tensor declare_volatile(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return torch_state::in_own_words(ErrorCode::unsupported_value, "declare volatile", "the tensor",
                                   [&] { return torch_state::marked_volatile(tensor); });
}

c10::impl::GenericList make_state_list() {
  return base::or_out_of_memory("make a list", "",
                                [] { return c10::impl::GenericList(c10::AnyType::get()); });
}

}  // namespace ckptring
