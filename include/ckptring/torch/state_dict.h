// The state of a training run: libtorch's own generic dictionary.
// Read next: training_state.h (collecting one from modules and optimizers), checkpointer.h.
#pragma once

#include <ckptring/export.h>

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

namespace ckptring {

/// Nested dicts, lists and tuples of tensors, int (64 bit), float, bool, str and None. Keys are
/// strings or ints. Keeps insertion order. Copies share the contents; `insert_or_assign`
/// overwrites, `insert` does not.
using StateDict = c10::impl::GenericDict;

/// An empty dictionary of the right kind.
CKPTRING_API StateDict make_state_dict();

/// An alias of `tensor` for a StateDict, which tells an asynchronous `save` that the tensor may
/// change as soon as `save` has returned: it is copied by then. For what `forward` writes to, a
/// running mean for example. Costs memory and time in `save`, see CheckpointStagerConfig;
/// `collect_module` does it for a module's buffers. What shares its storage may change as well.
/// @throws Error unsupported_value for a tensor that libtorch makes no alias of
CKPTRING_API at::Tensor declare_volatile(const at::Tensor& tensor);

/// An empty heterogeneous list of the right kind, to be stored in a StateDict.
CKPTRING_API c10::impl::GenericList make_state_list();

}  // namespace ckptring
