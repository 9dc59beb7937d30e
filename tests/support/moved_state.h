// The same state on other devices.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <ckptring/state_dict.h>

#include <vector>

namespace ckptring::test {

inline c10::Device cuda_device(int index = 0) {
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

/// The storages of its tensors, copied as they are, live in turn on these devices (kCPU among them,
/// if you like). Tensors that shared a storage still do.
StateDict moved_to(const StateDict& state, const std::vector<c10::Device>& devices);
StateDict to_device(const StateDict& state, int device = 0);
StateDict to_host(const StateDict& state);
/// One tensor with its storage; the same dtype, sizes, strides and offset.
at::Tensor to_device(const at::Tensor& tensor, int device = 0);
at::Tensor to_host(const at::Tensor& tensor);

}  // namespace ckptring::test
