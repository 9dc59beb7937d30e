// Where the states of this suite live. It is linked twice: with host_places.cpp they stay in host
// memory, with device_places.cpp they are spread over devices and the host.
#pragma once

#include <ATen/core/Tensor.h>
#include <ckptring/save_handle.h>
#include <ckptring/state_dict.h>

#include <cstdint>

namespace ckptring::test {

/// The state in the places where a test is to save it from. The tensors are others than those of
/// `state` unless they stay where they are. On devices, the kernels that write their values may not
/// have run yet.
StateDict placed(const StateDict& state);

/// What a training does next: changes what `placed` made as soon as that is allowed, without
/// waiting on the host.
void train_on(const SaveHandle& save, const StateDict& state);

/// What a training does before a step of its optimizer, as the documents teach.
void before_step(const SaveHandle& save);

/// Where models are trained.
c10::Device training_device();

/// A tensor of many bytes over little memory: the first `period` of them (a multiple of 4096) again
/// and again.
at::Tensor repeated_bytes(std::uint64_t bytes, std::uint64_t period);

}  // namespace ckptring::test
