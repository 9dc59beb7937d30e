// Where the states of this suite live. It is linked twice: with host_places.cpp they stay in host
// memory, with device_places.cpp they are spread over devices and the host.
#pragma once

#include <ckptring/save_handle.h>
#include <ckptring/state_dict.h>

namespace ckptring::test {

/// The state in the places where a test is to save it from. The tensors are others than those of
/// `state` unless they stay where they are. On devices, the kernels that write their values may not
/// have run yet.
StateDict placed(const StateDict& state);

/// What a training does next: changes what `placed` made as soon as that is allowed, without
/// waiting on the host.
void train_on(const SaveHandle& save, const StateDict& state);

}  // namespace ckptring::test
