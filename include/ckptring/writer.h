// The seam for custom storage and for commit hooks. Torch-free: helper executables built on
// ckptring::drain use it too. Read next: drain.h.
#pragma once

#include <ckptring/export.h>
#include <ckptring/rank_info.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace ckptring {

/// One checkpoint file that is about to be written.
struct CheckpointDescription {
  std::string directory;          ///< absolute; the `path` given to `save`
  std::string final_path;         ///< absolute; directory + "/checkpoint_{rank}.pt"
  std::uint64_t total_bytes = 0;  ///< exact size of the finished file
  RankInfo rank;
};

/// Receives the bytes of one checkpoint after another, instead of the built-in file writer.
///
/// All calls come from one thread, in the order begin, write…, then commit or abort. Bytes are
/// final: checksums are already in place. Any exception fails that save; `abort` follows. So does
/// the death of a checkpoint process that it runs in, as process_failed; within `commit`, as
/// outcome_unknown.
class CKPTRING_API CheckpointWriter {
 public:
  virtual ~CheckpointWriter() = default;
  virtual void begin(const CheckpointDescription& checkpoint) = 0;
  /// `offset` rises without gaps, from 0 to `total_bytes`. `bytes` may be reused once this
  /// returns, so it must have been written or copied by then.
  virtual void write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  /// Returns only when the checkpoint is durable and visible as a whole.
  virtual void commit() = 0;
  /// Leaves nothing visible.
  virtual void abort() noexcept = 0;
};

/// Called around the commit of each checkpoint. At least once each: a checkpoint process that
/// died in between is restarted and calls again. Names as in PyTorch.
class CKPTRING_API WriterHook {
 public:
  virtual ~WriterHook() = default;
  /// All bytes are durable under a hidden name. Throwing fails the save and removes them.
  virtual void pre_commit(const CheckpointDescription& checkpoint) { (void)checkpoint; }
  /// The checkpoint is visible and durable. Throwing becomes a warning in the `SaveReport`.
  virtual void post_commit(const CheckpointDescription& checkpoint) { (void)checkpoint; }
};

/// What a process writes with. Both members may be null: built-in file writer, no hook. A hook
/// is called around the commit of a custom writer as well.
struct WriterSetup {
  std::unique_ptr<CheckpointWriter> writer;
  std::unique_ptr<WriterHook> hook;
};

/// Makes the writer of one process; called once, before the first save.
using WriterFactory = std::function<WriterSetup(const RankInfo& rank)>;

}  // namespace ckptring
