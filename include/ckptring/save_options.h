// What is said of a checkpoint when it is saved.
#pragma once

#include <ckptring/checkpoints.h>
#include <ckptring/save_id.h>

#include <cstdint>
#include <optional>
#include <string>

namespace ckptring {

struct SaveOptions {
  std::optional<std::int64_t> step = {};  ///< training step; `latest` orders by it
  Metadata metadata = {};                 ///< stored with the checkpoint
  /// Of this attempt: the same on all ranks, and another one for each attempt. Default: what
  /// follows from a launch that torchrun (with an --rdzv-id) or srun has given a name; else none,
  /// and `latest` can tell attempts at one step in one directory apart by their metadata only. A
  /// job of one rank needs none.
  std::optional<SaveId> save_id = {};
  /// In the directory that is saved to, instead of `checkpoint_{rank}.pt`: a plain, visible name of
  /// at most 217 bytes. `load` of the directory, and `latest`, look for the latter only: name the
  /// file to read it back.
  std::string file_name = {};
};

}  // namespace ckptring
