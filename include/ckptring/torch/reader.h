// Reading a checkpoint back, whole or in part. Read next: checkpointer.h.
#pragma once

#include <ckptring/checkpoints.h>
#include <ckptring/export.h>
#include <ckptring/rank_info.h>
#include <ckptring/torch/state_dict.h>

#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <vector>

namespace ckptring {

struct LoadOptions {
  /// Missing keys are an error (missing_key) that names them all, before anything is changed.
  bool strict = false;
  /// Device for tensors that are made anew; default: CPU. Tensors of `state` stay on theirs. What
  /// goes to a CUDA device is read into pinned memory, and copied from there after the work that
  /// the caller has enqueued on its current stream.
  std::optional<c10::Device> default_map_location = {};
  /// Check each payload's CRC-32 while reading it. A file that has none (torch.save was told to
  /// leave them out) is unsupported_value then.
  bool verify_checksums = true;
  /// Read and check every requested payload before the first byte of `state` is changed.
  bool verify_first = false;
  /// Accept a file that was written by a job of another size.
  bool allow_other_world_size = false;
  /// Threads that check and copy, at most 256; 0: as many as this process has cores, at most 8.
  /// Lower it where several ranks of one machine load at the same time. Up to 8 more wait for the
  /// disk. Each takes 1 MiB of memory meanwhile.
  unsigned threads = 0;
};

struct LoadResult {
  StateDict state;                        ///< the `state` given (same object), or a new one
  std::vector<std::string> missing_keys;  ///< asked for and not in the file, as "a.b[0].c"
  CheckpointInfo info;
};

/// Reads `path/checkpoint_{rank}.pt`, or `path` itself if it is a file. Stateless; thread-safe.
class CKPTRING_API CheckpointReader {
 public:
  /// @throws Error invalid_argument for a negative rank or rank >= world size
  explicit CheckpointReader(RankInfo rank_info = {});

  /// Without `state`: everything in the file; what is one object there is one here. With `state`:
  /// only the keys that it has, nested; None means "take it from the file". Tensors are filled in
  /// place: identity, aliasing, strides, device and Parameters stay; their version counters rise.
  /// Scalars are replaced. A shorter list gets the missing items; a longer one, another kind of
  /// leaf, shape or dtype is a mismatch. What the state has under several keys (a container,
  /// tensors in the same memory) is changed once: that the file has different values for it is a
  /// mismatch, too, which names both keys; where they come from different places of the file, they
  /// are read and compared before, and held in memory for that. All of this, and keys and record
  /// bounds, is checked before the first byte of `state` is changed. Never waits for saves.
  ///
  /// Memory and time are in proportion to the file, whatever it holds (docs/FORMAT.md, Limits), and
  /// a stack of 128 KiB is enough.
  /// @throws Error not_found, damaged (with the keys that were already overwritten),
  ///         unsupported_value, mismatch, missing_key, newer_format, io; device_failed and
  ///         out_of_memory, also of a device (likewise); invalid_argument (a device that cannot be
  ///         used)
  [[nodiscard]] LoadResult read(const std::string& path, std::optional<StateDict> state = {},
                                const LoadOptions& options = {}) const;

 private:
  RankInfo rank_info_;
};

}  // namespace ckptring
