// Tensors of which libtorch refuses to say something.
#pragma once

#include <ATen/Functions.h>
#include <c10/core/TensorImpl.h>

#include <vector>

namespace ckptring::test {

/// Rows of different lengths.
inline at::Tensor nested_tensor() {
  const std::vector<at::Tensor> rows{at::ones({2}), at::ones({3})};
  return at::_nested_tensor_from_tensor_list(rows);
}

/// Its sizes cannot be asked.
inline at::Tensor shapeless_tensor() {
  struct Impl final : c10::TensorImpl {
    explicit Impl(const at::Tensor& of)
        : TensorImpl(c10::Storage(of.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU),
                     of.dtype()) {
      set_custom_sizes_strides(SizesStridesPolicy::CustomSizes);
    }
    [[noreturn]] static void refuse() { TORCH_CHECK(false, "there are no sizes\nat all"); }
    c10::IntArrayRef sizes_custom() const override { refuse(); }
    c10::SymIntArrayRef sym_sizes_custom() const override { refuse(); }
    c10::IntArrayRef strides_custom() const override { refuse(); }
    c10::SymIntArrayRef sym_strides_custom() const override { refuse(); }
    std::int64_t dim_custom() const override { refuse(); }
    std::int64_t numel_custom() const override { refuse(); }
    c10::SymInt sym_numel_custom() const override { refuse(); }
  };
  return at::Tensor(c10::make_intrusive<Impl>(at::ones({4})));
}

/// No other tensor can be made of it.
inline at::Tensor lonely_tensor() {
  struct Impl final : c10::TensorImpl {
    explicit Impl(const at::Tensor& of)
        : TensorImpl(c10::Storage(of.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU),
                     of.dtype()) {}
    [[noreturn]] static void refuse() { TORCH_CHECK(false, "there is\nonly one"); }
    c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& /*counter*/,
                                                           bool /*allowed*/) const override {
      refuse();
    }
    c10::intrusive_ptr<TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& /*counter*/,
                                                           bool /*allowed*/) const override {
      refuse();
    }
  };
  return at::Tensor(c10::make_intrusive<Impl>(at::ones({4})));
}

/// Its memory was taken away, as some ways of sharding do between steps.
inline at::Tensor freed_tensor() {
  at::Tensor made = at::ones({4});
  made.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr());
  made.storage().unsafeGetStorageImpl()->set_nbytes(0);
  return made;
}

}  // namespace ckptring::test
