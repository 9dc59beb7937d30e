#include "cuda/pinned_copies.h"

#include "support/stopwatch.h"

#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/ivalue.h>

#include <cstddef>

namespace bench {
namespace {

void collect(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) collect(entry.value(), tensors);
  }
}

}  // namespace

std::vector<at::Tensor> tensors_of(const ckptring::StateDict& state) {
  std::vector<at::Tensor> tensors;
  collect(state, tensors);
  return tensors;
}

PinnedCopies::PinnedCopies(const ckptring::test::Devices& devices, const ckptring::StateDict& state,
                           int device)
    : devices_(devices), device_(device), tensors_(tensors_of(state)) {
  std::int64_t elements = 0;
  for (const at::Tensor& tensor : tensors_) elements += tensor.numel();
  flat_ = at::empty({elements}, tensors_.front().options());
  flat_.fill_(1);
  pinned_ = at::empty({elements}, at::TensorOptions().dtype(at::kFloat).pinned_memory(true));
  std::int64_t at = 0;
  for (const at::Tensor& tensor : tensors_) {
    parts_.push_back(pinned_.narrow(0, at, tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
}

double PinnedCopies::whole() const {
  const c10::Stream stream = devices_.current_stream(device_);
  devices_.synchronise(stream);
  const Stopwatch watch;
  pinned_.copy_(flat_, /*non_blocking=*/true);
  devices_.synchronise(stream);
  return watch.seconds();
}

double PinnedCopies::each() const {
  const c10::Stream stream = devices_.current_stream(device_);
  devices_.synchronise(stream);
  const Stopwatch watch;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    parts_[i].copy_(tensors_[i], /*non_blocking=*/true);
  }
  devices_.synchronise(stream);
  return watch.seconds();
}

}  // namespace bench
