// Compares a state with what a file holds, before anything is changed.
#pragma once

#include "plan/value.h"
#include "torch/fill_plan.h"

#include <ckptring/torch/state_dict.h>

namespace ckptring::torch_state {

/// Checks structure, kinds, shapes and dtypes of everything that `state` asks for, and collects
/// in `plan` what is to be filled and changed, and which keys are missing in the file. A container
/// that the state has under several keys is changed once, and the file must have the same for it
/// under all of them; whether that holds for the bytes of tensors is fill_records' part. Takes
/// little of the stack.
/// @throws Error mismatch, unsupported_value; each names the key
void match_state(const StateDict& state, const plan::Document& document, const plan::Dict& file,
                 FillPlan& plan);

}  // namespace ckptring::torch_state
