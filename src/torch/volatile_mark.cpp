#include "torch/volatile_mark.h"

namespace ckptring::torch_state {
namespace {

/// libtorch's place for what others know of a tensor. Goes along with `detach`, and with nothing
/// that makes another storage.
struct VolatileMark final : c10::BackendMeta {};

}  // namespace

at::Tensor marked_volatile(const at::Tensor& tensor) {
  at::Tensor alias = tensor.detach();
  alias.unsafeGetTensorImpl()->set_backend_meta(c10::make_intrusive<VolatileMark>());
  return alias;
}

bool is_volatile(const c10::TensorImpl& tensor) {
  const auto meta = tensor.get_backend_meta_intrusive_ptr();
  return dynamic_cast<const VolatileMark*>(meta.get()) != nullptr;
}

}  // namespace ckptring::torch_state
