// Collecting the state of a training run into a StateDict, and putting it back.
//
// Keys and layout are those of Python's `state_dict()`, so that a checkpoint written here loads
// into the same model and optimizer there. Training continues bit-identically after `restore_*`.
#pragma once

#include <ckptring/export.h>
#include <ckptring/torch/state_dict.h>

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

namespace ckptring {

struct CollectModuleOptions {
  /// Declare what `forward` may write to as volatile, so that it may run as soon as `save` has
  /// returned: all buffers (the running statistics of BatchNorm and InstanceNorm), and the weights
  /// of embeddings with `max_norm`. False for a module whose `forward` never runs before `staged`.
  bool declare_volatile = true;
};

/// Parameters and buffers by their qualified names, aliasing the module's own tensors: loading
/// into the result in place restores the module.
/// @throws Error unsupported_value for what libtorch tells nothing of
CKPTRING_API StateDict collect_module(const torch::nn::Module& module,
                                      const CollectModuleOptions& options = {});

/// Copies values from `state` into the module's parameters and buffers; keys that the module does
/// not have are left alone. The values may be views of the module's own tensors. Tensors that share
/// memory have to get the same.
/// @throws Error missing_key, mismatch (also for tensors without memory, and expanded ones); they
///         name the key, and nothing has been changed then; device_failed and out_of_memory of a
///         device, which name the keys that were overwritten
CKPTRING_API void restore_module(torch::nn::Module& module, const StateDict& state);

/// {"state": {index: {...}}, "param_groups": [{..., "params": [index, ...]}, ...]}, indices
/// counted through `param_groups` in order. AdamW and SGD.
/// @throws Error unsupported_value with the type's name for another optimizer
CKPTRING_API StateDict collect_optimizer(const torch::optim::Optimizer& optimizer);

/// The inverse; state that `state` does not have is erased. Numbers may be tensors of one element,
/// as Python allows for a learning rate.
/// @throws Error unsupported_value, missing_key, mismatch; nothing has been changed then;
///         device_failed and out_of_memory as above
CKPTRING_API void restore_optimizer(torch::optim::Optimizer& optimizer, const StateDict& state);

/// The state of the default CPU random number generator, a uint8 tensor.
CKPTRING_API at::Tensor collect_cpu_generator();
CKPTRING_API void restore_cpu_generator(const at::Tensor& state);

}  // namespace ckptring
