// Where one save's bytes go: the seam between draining and storage.
//
// A sink is driven by exactly one thread. Life of a save:
//   begin -> submit / reap, repeated -> commit        (or abort at any point after begin was
//   called)
// After a crash a new process makes a new sink for the same SaveTarget and begins it as resuming.
#pragma once

#include "base/log.h"

#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ckptring::store {

/// Names chosen by the trainer before anything is written.
struct SaveTarget {
  std::string directory;         ///< absolute; what was given to save
  std::string final_name;        ///< "checkpoint_{rank}.pt", within directory
  std::string temporary_name;    ///< hidden, with a 128-bit id, within directory
  std::uint32_t missing_levels;  ///< trailing components of `directory` that did not exist then
  std::uint64_t total_bytes;     ///< exact size of the finished file
  RankInfo rank;
  std::uint64_t save = 0;  ///< its number, for the log; 0: none
  /// Of the save before this one, which the same process may still be writing: no other
  /// checkpointer.
  std::string earlier_temporary = {};
  /// Of the trainer when it called `save`, where another process writes for it; none: not known,
  /// or it is the writing process's own.
  std::optional<mode_t> umask = {};
  /// Of the file system that the directory is on, or will be; 0: not known.
  std::uint64_t device = 0;
};

/// For lines about that save.
inline base::LogContext log_of(const SaveTarget& target) {
  return {target.rank.global_rank, target.save};
}

/// A span of final bytes (checksums patched) and its place in the file.
struct Extent {
  static constexpr std::uint64_t kUnit = 4096;  ///< bytes; what a disk is written in

  std::uint64_t token;        ///< the caller's; comes back from reap
  std::uint64_t file_offset;  ///< a multiple of the block size
  std::byte* data;            ///< aligned to kUnit; `capacity` bytes may be read
  std::uint64_t size;         ///< bytes that belong to the file; below a block only at its end
  std::uint64_t capacity;     ///< size rounded up to kUnit; the rest is zero-filled by the sink
};

enum class Beginning {
  fresh,       ///< nothing of this save was ever written
  resuming,    ///< an earlier process may have created the temporary and written to it
  completing,  ///< the same, and some of the bytes are only there: without it the save has failed
  renaming,    ///< an earlier process recorded that it was about to rename
};

/// Points of a commit that must be recorded before they are passed.
enum class CommitPhase {
  syncing,      ///< also after a rename that failed: the temporary is not renamed
  sync_failed,  ///< errno says why. A second fsync would report success over what was lost
  renaming,
};
/// @param path the file or directory that is synced, or whose sync failed; the name that the file
///             is about to get
using PhaseRecorder = std::function<void(CommitPhase, const std::string& path)>;

/// Seconds and warnings, for the SaveReport.
struct CommitTimes {
  double fsync_seconds = 0;
  double commit_seconds = 0;
  std::vector<std::string> warnings;
};

class SaveSink {
 public:
  virtual ~SaveSink() = default;

  /// Ahead of begin, while the save before this one is still being written: makes the directories
  /// and the temporary and takes its lock, so that there is no moment in which others see neither
  /// save under way. Reserves nothing. Answers and throws as begin does, never waits, and may be
  /// called again; then begin, with the same `beginning`. Does nothing where there is no name to
  /// take.
  virtual bool claim(Beginning) { return false; }

  /// From now on another save to the same final name is not waited for: it is a newer one.
  virtual void give_way() noexcept {}

  /// Makes the directories and the temporary, or opens it again, and takes its lock.
  /// @return false while another process holds the lock (a predecessor's writes still in
  ///         flight), or while another save to the same final name is under way: call again a
  ///         little later. Until true: no submit, no commit.
  /// @throws Error; busy_elsewhere once the other save took longer than `busy_timeout_secs`, io if
  ///         somebody else has locked the directory for as long
  virtual bool begin(Beginning beginning) = 0;

  /// How many more extents may be submitted now without waiting.
  [[nodiscard]] virtual std::size_t room() const = 0;

  /// Queues a write. `extent.data` stays valid and unchanged until reap returns its token.
  /// Requires room() > 0. @throws Error
  virtual void submit(const Extent& extent) = 0;

  /// Becomes readable when reap may have something; -1 if submit always finishes at once.
  [[nodiscard]] virtual int completion_fd() const = 0;

  /// Appends the tokens whose bytes are on disk. Never blocks.
  /// @throws Error of a failed write; then only abort is allowed
  virtual void reap(std::vector<std::uint64_t>& done) = 0;

  /// After every token was reaped. With Beginning::renaming: finishes the interrupted rename and
  /// needs no bytes.  @throws Error; then only abort is allowed
  virtual CommitTimes commit(const PhaseRecorder& record) = 0;

  /// Waits until no write is in flight any more, removes the temporary and the directories that
  /// this save made. Also lets go of memory given to submit.
  virtual void abort() noexcept = 0;
};

}  // namespace ckptring::store
