// Making a written file durable and visible:
//
//   fsync -> pre_commit -> rename -> fsync of the directories -> post_commit
//
// Each step that a successor must know of is recorded before it is taken.
#pragma once

#include "store/directories.h"
#include "store/file_system.h"
#include "store/save_sink.h"

#include <ckptring/writer.h>

#include <string>

namespace ckptring::store {

/// What hooks and custom writers are told.
[[nodiscard]] CheckpointDescription describe(const SaveTarget& target);

/// Runs the hook's `pre_commit`, if there is a hook.
/// @throws Error hook_failed with the hook's words
void run_pre_commit(WriterHook* hook, const CheckpointDescription& checkpoint);

/// Runs the hook's `post_commit`, if there is a hook. What it throws becomes a warning.
void run_post_commit(WriterHook* hook, const CheckpointDescription& checkpoint, CommitTimes& times);

/// Words of the exception that is being handled.
[[nodiscard]] std::string current_exception_text();

class Commit {
 public:
  /// Refers to all arguments as long as it lives. `hook` may be null.
  Commit(FileSystem& files, const SaveTarget& target, const SaveDirectories& directories,
         WriterHook* hook);

  /// @param fd the temporary, with all its bytes on disk; may be longer than the file by padding
  /// @throws Error
  CommitTimes run(int fd, const PhaseRecorder& record) const;

  /// Goes on where a predecessor had recorded `renaming`: all but the rename is known to be done,
  /// and the rename may be.
  /// @throws Error
  CommitTimes finish(const PhaseRecorder& record) const;

 private:
  void rename_and_sync(const PhaseRecorder& record) const;

  FileSystem& files_;
  const SaveTarget& target_;
  const SaveDirectories& directories_;
  WriterHook* hook_;
  std::string temporary_path_;
  std::string final_path_;
};

}  // namespace ckptring::store
