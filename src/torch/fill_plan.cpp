#include "torch/fill_plan.h"

#include "torch/bare_tensor.h"
#include "torch/dtype_map.h"
#include "torch/libtorch_error.h"

#include <ckptring/error.h>

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/ops/empty.h>

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace ckptring::torch_state {

void Fill::touch() {
  if (!std::exchange(touched, true)) bump_version(target);
}

void Change::apply() const {
  if (container.isGenericDict()) {
    container.toGenericDict().insert_or_assign(key, value);
    return;
  }
  c10::List<c10::IValue> list = container.toList();
  if (key.isNone()) {
    list.push_back(value);
  } else {
    list.set(static_cast<std::size_t>(key.toInt()), value);
  }
}

FillPlan::~FillPlan() {
  changes.clear();
  while (!kept_.empty()) kept_.pop_back();
}

Error FillPlan::error(ErrorCode code, const std::string& key, std::string cause) const {
  return {code, fmt::format("load key {} from", key), file_, std::move(cause)};
}

FillPlan::RecordState& FillPlan::record_of(const plan::Tensor& tensor) {
  RecordState& state = records_[tensor.record()];
  state.fills.record = &archive_.records()[tensor.record()];
  return state;
}

c10::Storage FillPlan::make_storage(std::uint64_t bytes) const {
  const auto options = at::TensorOptions().dtype(c10::kByte).device(device_);
  return through_libtorch(
      device_, fmt::format("cannot make {} bytes on device {}", bytes, device_.str()),
      [&] { return at::empty({static_cast<std::int64_t>(bytes)}, options).storage(); });
}

at::Tensor FillPlan::make_tensor(const plan::Tensor& tensor, KeyTree::Node key) {
  RecordState& state = record_of(tensor);
  try {
    return through_libtorch(device_, fmt::format("cannot make it on device {}", device_.str()),
                            [&] { return make_over(state, tensor, key); });
  } catch (const Error& failure) {
    throw error(failure.code(), keys.path(key), failure.what());
  }
}

at::Tensor FillPlan::make_over(RecordState& state, const plan::Tensor& tensor,
                               KeyTree::Node key) const {
  if (!state.fresh) {
    const std::uint64_t bytes = state.fills.record->size;
    state.fresh = make_storage(bytes);
    if (bytes > 0) {
      const auto length = static_cast<std::int64_t>(bytes);
      state.fills.fills.push_back({
          .target = view_of_storage(state.fresh, c10::kByte, 0, {length}, {1}),
          .view = {.dtype = plan::DType::uint8, .sizes = {length}, .strides = {1}},
          .key = key,
          .fresh = true,
      });
    }
  }
  at::Tensor made = view_of_storage(state.fresh, to_scalar_type(tensor.dtype()), tensor.offset(),
                                    tensor.sizes(), tensor.strides());
  if (tensor.conj()) made.unsafeGetTensorImpl()->_set_conj(true);
  if (tensor.neg()) made.unsafeGetTensorImpl()->_set_neg(true);
  if (tensor.requires_grad()) made.set_requires_grad(true);
  return made;
}

Fill& FillPlan::add_fill(const at::Tensor& target, const plan::Tensor& tensor, KeyTree::Node key) {
  return record_of(tensor).fills.fills.emplace_back(Fill{
      .target = target,
      .view = {tensor.dtype(), static_cast<std::uint64_t>(tensor.offset()), tensor.sizes(),
               tensor.strides(), tensor.conj(), tensor.neg()},
      .key = key,
  });
}

void FillPlan::fill_in_place(const at::Tensor& target, const plan::Tensor& tensor,
                             KeyTree::Node key) {
  add_fill(target, tensor, key);
}

void FillPlan::compare(const at::Tensor& made, const plan::Tensor& tensor, KeyTree::Node key) {
  Fill& fill = add_fill(made, tensor, key);
  fill.fresh = true;
  fill.compared = true;
}

void FillPlan::make_room_for_changes() const {
  std::unordered_map<std::size_t, std::size_t> sizes;  // of lists, by identity
  for (const Change& change : changes) {
    if (!change.container.isList() || !change.key.isNone()) continue;
    std::size_t& size = sizes[c10::IValue::HashIdentityIValue{}(change.container)];
    size = std::max(size, change.container.toListRef().size()) + 1;
  }
  for (const Change& change : changes) {
    if (!change.container.isList() || !change.key.isNone()) continue;
    change.container.toList().reserve(sizes[c10::IValue::HashIdentityIValue{}(change.container)]);
  }
}

std::vector<RecordFills> FillPlan::take_records() {
  std::vector<RecordFills> records;  // in the order of the archive, which is the file's
  for (RecordState& state : records_) {
    if (!state.fills.fills.empty()) records.push_back(std::move(state.fills));
  }
  records_.clear();
  return records;
}

}  // namespace ckptring::torch_state
