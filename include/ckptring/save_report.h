// What one save cost, phase by phase.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ckptring {

/// Delivered by `SaveHandle::written`. Seconds are wall time.
struct SaveReport {
  std::string path;                   ///< the committed file
  std::uint64_t bytes = 0;            ///< size of the file
  double planned_seconds = 0;         ///< walking the state and laying out the file
  double staged_seconds = 0;          ///< from the end of planning until the state may change again
  double stalled_seconds = 0;         ///< part of staging spent waiting for room in the ring
  double drained_seconds = 0;         ///< from the first block taken until the last one is on disk
  double fsync_seconds = 0;           ///< making the file itself durable
  double commit_seconds = 0;          ///< rename, directories, hooks
  std::uint32_t restarts = 0;         ///< how often the checkpoint process was restarted meanwhile
  std::vector<std::string> warnings;  ///< e.g. a `post_commit` hook that threw
};

}  // namespace ckptring
