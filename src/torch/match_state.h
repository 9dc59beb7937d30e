// Compares a state with what a file holds, before anything is changed.
#pragma once

#include "plan/value.h"
#include "torch/fill_plan.h"

#include <ckptring/state_dict.h>

namespace ckptring::torch_state {

/// Checks structure, kinds, shapes and dtypes of everything that `state` asks for, and collects
/// in `plan` what is to be filled and changed, and which keys are missing in the file.
/// @throws Error mismatch, unsupported_value, damaged; each names the key
void match_state(const StateDict& state, const plan::Dict& file, FillPlan& plan);

}  // namespace ckptring::torch_state
