// What becomes of a checkpoint process whose trainer dies.
#pragma once

#include "support/noise_state.h"

#include <ckptring/config.h>

#include <string>

namespace bench {

struct OrphanTimes {
  double left_bytes;  ///< that were not written yet when the trainer died
  double committed;   ///< seconds since then, until the file had its name
  double ended;       ///< and until the checkpoint process was gone
};

/// Orphans become this process's children from now on, and can be waited for.
/// @throws std::system_error
void adopt_orphans();

/// Forks a trainer that saves `state` (of `state_bytes`) below `directory`, kills it (SIGKILL) as
/// soon as the save is staged, and waits for the commit. Call adopt_orphans first.
/// @throws std::runtime_error, std::system_error
OrphanTimes measure_orphan(const ckptring::CheckpointerConfig& config, const std::string& directory,
                           const NoiseState& state, std::uint64_t state_bytes);

}  // namespace bench
