#include "support/moved_state.h"

#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/ivalue.h>

#include <map>
#include <utility>

namespace ckptring::test {
namespace {

/// Moves tensors storage by storage.
class Move {
 public:
  explicit Move(std::vector<c10::Device> devices) : devices_(std::move(devices)) {}

  at::Tensor operator()(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    const at::Storage storage = moved(tensor.storage());
    at::Tensor made =
        at::empty({0}, at::TensorOptions().dtype(tensor.dtype()).device(storage.device()));
    made.set_(storage, tensor.storage_offset(), tensor.sizes(), tensor.strides());
    if (tensor.is_conj()) made._set_conj(true);
    if (tensor.is_neg()) made._set_neg(true);
    return made.set_requires_grad(tensor.requires_grad());
  }

  c10::IValue operator()(const c10::IValue& value) {
    if (value.isTensor()) return (*this)(value.toTensor());
    if (value.isGenericDict()) return (*this)(value.toGenericDict());
    if (value.isList()) {
      auto made = make_state_list();
      for (const c10::IValue& item : value.toListRef()) made.push_back((*this)(item));
      return made;
    }
    if (value.isTuple()) {
      std::vector<c10::IValue> items;
      for (const c10::IValue& item : value.toTupleRef().elements()) items.push_back((*this)(item));
      return c10::ivalue::Tuple::create(std::move(items));
    }
    return value;
  }

  StateDict operator()(const StateDict& state) {
    StateDict made = make_state_dict();
    for (const auto& entry : state) made.insert_or_assign(entry.key(), (*this)(entry.value()));
    return made;
  }

 private:
  at::Storage moved(const at::Storage& storage) {
    const auto known = moved_.find(storage.unsafeGetStorageImpl());
    if (known != moved_.end()) return known->second;
    const c10::Device device = devices_[moved_.size() % devices_.size()];
    const auto bytes_of = [&](const at::Storage& of) {
      return at::empty({0}, at::TensorOptions().dtype(at::kByte).device(of.device()))
          .set_(of, 0, {static_cast<std::int64_t>(storage.nbytes())}, {1});
    };
    at::Tensor bytes = at::empty({static_cast<std::int64_t>(storage.nbytes())},
                                 at::TensorOptions().dtype(at::kByte).device(device));
    bytes.copy_(bytes_of(storage));
    moved_.emplace(storage.unsafeGetStorageImpl(), bytes.storage());
    keeps_.push_back(storage);
    return bytes.storage();
  }

  std::vector<c10::Device> devices_;
  std::map<const c10::StorageImpl*, at::Storage> moved_;
  std::vector<at::Storage> keeps_;  ///< so that no other storage gets the address of one
};

}  // namespace

StateDict moved_to(const StateDict& state, const std::vector<c10::Device>& devices) {
  return Move(devices)(state);
}

StateDict to_device(const StateDict& state, int device) {
  return moved_to(state, {cuda_device(device)});
}

StateDict to_host(const StateDict& state) { return moved_to(state, {c10::kCPU}); }

at::Tensor to_device(const at::Tensor& tensor, int device) {
  return Move({cuda_device(device)})(tensor);
}

at::Tensor to_host(const at::Tensor& tensor) { return Move({c10::kCPU})(tensor); }

}  // namespace ckptring::test
