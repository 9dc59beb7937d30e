// The state of a training run that everybody can picture: GPT-2 small with AdamW.
#pragma once

#include <ckptring/state_dict.h>

#include <cstddef>
#include <span>
#include <vector>

namespace bench {

struct Gpt2State {
  ckptring::StateDict state;  ///< as a trainer has it: model, optimizer, scalars
  std::size_t tensors;
  std::vector<std::span<const std::byte>> payloads;  ///< each tensor's bytes, in walking order
};

/// 148 parameters in fp32, filled with random numbers, each with AdamW's two moments: 444 tensors,
/// 1.49 GB at `scale` 1. `scale` is the share of that size, reached by narrower layers; the
/// number of tensors stays.
Gpt2State make_gpt2_state(double scale);

/// Visits every tensor and reads what a plan needs to know of it, and nothing more: the least
/// that planning can cost.
/// @return seconds
double walk_state(const ckptring::StateDict& state);

}  // namespace bench
