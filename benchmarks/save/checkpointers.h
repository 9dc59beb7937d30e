// The contestants of this library.
#pragma once

#include "save/run_figures.h"
#include "save/state_shape.h"
#include "support/work_directory.h"

#include <ckptring/checkpointer.h>

#include <cstdint>
#include <optional>
#include <string>

namespace bench {

/// What the contestants of one part share; outlives them.
struct Setting {
  const WorkDirectory& work;
  CurrentState& states;
  StateSpec spec;
  std::uint64_t file_bytes = 0;  ///< of the file that the library makes of it
  ckptring::CheckpointerConfig config;
  int saves = 1;  ///< of each turn, after its first one; their median counts
};

/// Size of the file that the library makes of a state.
std::uint64_t file_bytes_of(const WorkDirectory& work, const SavedState& state);

class SyncSaves : public SaveContestant {
 public:
  explicit SyncSaves(const Setting& setting);
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
};

struct AsyncKind {
  double ring_share = 1;             ///< of the file's size; from 1 on a little is added
  bool async_staging = true;         ///< see CheckpointStagerConfig
  bool prepared = true;              ///< the ring is populated before the first save
  bool captures = true;              ///< small tensors, before save returns
  bool samples = true;               ///< large ones
  std::optional<StateSpec> of = {};  ///< instead of the setting's state
};

class AsyncSaves : public SaveContestant {
 public:
  AsyncSaves(const Setting& setting, std::string id, std::string label, const AsyncKind& kind);
  RunFigures run(int round) override;

 private:
  const Setting& setting_;
  AsyncKind kind_;
};

}  // namespace bench
