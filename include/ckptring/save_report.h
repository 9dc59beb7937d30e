// What one save cost, phase by phase.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ckptring {

/// Delivered by `SaveHandle::written`. Seconds are wall time.
struct SaveReport {
  std::string path;                  ///< the committed file
  std::uint64_t bytes = 0;           ///< size of the file
  double planned_seconds = 0;        ///< walking the state and laying out the file
  double staged_seconds = 0;         ///< from the end of planning until the state may change again
  double captured_seconds = 0;       ///< part of `save` spent copying what may change at once
  std::uint64_t captured_bytes = 0;  ///< of it, see `AsyncCheckpointer::prepare`
  std::uint64_t captured_storages = 0;
  double stalled_seconds = 0;         ///< part of staging spent waiting for room in the ring
  double drained_seconds = 0;         ///< from the first block taken until the last one is on disk
  double fsync_seconds = 0;           ///< making the file itself durable
  double commit_seconds = 0;          ///< rename, directories, hooks
  std::uint32_t restarts = 0;         ///< how often the checkpoint process was restarted meanwhile
  std::vector<std::string> warnings;  ///< e.g. a `post_commit` hook that threw
};

/// What `AsyncCheckpointer::prepare` made ready.
struct PrepareReport {
  /// What every `save` of a state of this structure copies before it returns, and so may change at
  /// once: the keys of the first tensor of each storage.
  std::vector<std::string> captured_keys;
  std::uint64_t captured_bytes = 0;
};

}  // namespace ckptring
