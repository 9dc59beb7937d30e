// How long a checkpoint process takes to start.
#pragma once

#include "support/noise_state.h"

#include <string>

namespace bench {

/// Seconds.
struct StartTimes {
  double spawned;        ///< clone and exec of the helper program alone, nothing else
  double made;           ///< until the constructor of a checkpointer returned
  double ready;          ///< from there on, until its checkpoint process had attached
  double first_ready;    ///< from the first save, until the process of its ring had attached
  double first_durable;  ///< from the first save, until it was durable
};

/// Starts one with the default configuration, in which the first save brings a ring of its size
/// and with it another process, and saves `state`, of more than two blocks, below `directory`.
/// @param executable the helper program
StartTimes measure_start(const std::string& executable, const std::string& directory,
                         const NoiseState& state);

/// Beside it: a fork of this process, in seconds until the parent goes on.
/// @throws std::system_error
double measure_fork();

}  // namespace bench
