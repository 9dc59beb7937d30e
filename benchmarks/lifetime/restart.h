// What the death of a checkpoint process costs while it drains.
#pragma once

#include "support/noise_state.h"

#include <ckptring/config.h>

#include <cstdint>
#include <string>

namespace bench {

/// Seconds since the kill, unless said otherwise.
struct RestartTimes {
  double started;          ///< until another process was started
  double draining;         ///< until that one submitted its first write
  double beyond;           ///< how much of it came after the dead one's writes in flight had ended
  double rewritten_bytes;  ///< written a second time
};

/// Saves `state` below `directory`, kills the checkpoint process (SIGKILL) once it has written
/// `kill_after` bytes, and lets its successor complete the save.
/// @throws std::runtime_error if the save was over first
RestartTimes measure_restart(const ckptring::CheckpointerConfig& config,
                             const std::string& directory, const NoiseState& state,
                             std::uint64_t kill_after);

}  // namespace bench
