#include "store/commit.h"

#include <ckptring/error.h>

#include <chrono>
#include <exception>

namespace ckptring::store {
namespace {

using std::chrono::steady_clock;

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

}  // namespace

CheckpointDescription describe(const SaveTarget& target) {
  return {target.directory, path_in(target.directory, target.final_name), target.total_bytes,
          target.rank};
}

std::string current_exception_text() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of unknown type";
  }
}

void run_pre_commit(WriterHook* hook, const CheckpointDescription& checkpoint) {
  if (hook == nullptr) return;
  try {
    hook->pre_commit(checkpoint);
  } catch (...) {
    throw Error(ErrorCode::hook_failed, "pre_commit hook for", checkpoint.final_path,
                current_exception_text());
  }
}

void run_post_commit(WriterHook* hook, const CheckpointDescription& checkpoint,
                     CommitTimes& times) {
  if (hook == nullptr) return;
  try {
    hook->post_commit(checkpoint);
  } catch (...) {
    times.warnings.push_back("post_commit hook for " + checkpoint.final_path + ": " +
                             current_exception_text());
  }
}

Commit::Commit(FileSystem& files, const SaveTarget& target, const SaveDirectories& directories,
               WriterHook* hook)
    : files_(files),
      target_(target),
      directories_(directories),
      hook_(hook),
      temporary_path_(path_in(target.directory, target.temporary_name)),
      final_path_(path_in(target.directory, target.final_name)) {}

CommitTimes Commit::run(int fd, const PhaseRecorder& record) const {
  CommitTimes times;
  record(CommitPhase::syncing, temporary_path_);
  const auto sync_begin = steady_clock::now();
  struct ::stat status {};
  if (files_.fstat(fd, status) != 0) throw Error::from_errno(errno, "look at", temporary_path_);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size < target_.total_bytes) {
    throw Error(ErrorCode::io, "commit", temporary_path_, "somebody truncated the file");
  }
  // Direct writes are padded to a whole unit; the padding does not belong to the file.
  if (size > target_.total_bytes &&
      uninterrupted([&] { return files_.ftruncate(fd, target_.total_bytes); }) != 0) {
    throw Error::from_errno(errno, "set the size of", temporary_path_);
  }
  // Once only: a second fsync after a failed one reports success over lost bytes.
  if (files_.fsync(fd) != 0) {
    const int error = errno;
    record(CommitPhase::sync_failed, temporary_path_);
    throw Error::from_errno(error, "fsync", temporary_path_);
  }
  times.fsync_seconds = seconds_since(sync_begin);

  const auto commit_begin = steady_clock::now();
  const CheckpointDescription checkpoint = describe(target_);
  run_pre_commit(hook_, checkpoint);
  record(CommitPhase::renaming, final_path_);
  rename_and_sync(record);
  run_post_commit(hook_, checkpoint, times);
  times.commit_seconds = seconds_since(commit_begin);
  return times;
}

CommitTimes Commit::finish(const PhaseRecorder& record) const {
  CommitTimes times;
  const auto commit_begin = steady_clock::now();
  record(CommitPhase::renaming, final_path_);
  struct ::stat status {};
  if (files_.stat(temporary_path_, status, /*follow=*/false) == 0) {
    rename_and_sync(record);
  } else if (errno != ENOENT) {
    throw Error::from_errno(errno, "look at", temporary_path_);
  } else {
    // Renamed by the predecessor, unless the final name is missing too.
    if (files_.stat(final_path_, status, /*follow=*/false) != 0) {
      throw Error::from_errno(errno, "finish the rename to", final_path_);
    }
    directories_.sync(record);
  }
  run_post_commit(hook_, describe(target_), times);
  times.commit_seconds = seconds_since(commit_begin);
  return times;
}

void Commit::rename_and_sync(const PhaseRecorder& record) const {
  if (files_.rename(temporary_path_, final_path_) != 0) {
    const int error = errno;
    // The temporary is removed now. A successor that found *renaming* would take its absence, and
    // an older file under the final name, for a rename that was done.
    record(CommitPhase::syncing, temporary_path_);
    throw Error::from_errno(error, "rename to", final_path_);
  }
  directories_.sync(record);
}

}  // namespace ckptring::store
