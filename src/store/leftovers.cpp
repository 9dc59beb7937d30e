#include "store/leftovers.h"

#include "base/log.h"
#include "base/system_words.h"
#include "store/directories.h"
#include "store/file_lock.h"
#include "store/temporary_name.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace ckptring::store {
namespace {

using std::chrono::milliseconds;

// A guard is held for some hundred microseconds; ranks that save to one directory meet here.
constexpr int kGuardAttempts = 20;
constexpr milliseconds kGuardPause{1};

}  // namespace

DirectoryGuard::Outcome DirectoryGuard::take(FileSystem& files, const std::string& directory) {
  for (int attempt = 0; attempt < kGuardAttempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(kGuardPause);
    os::UninheritedFd fd = open_directory(files, directory);
    if (!fd) return Outcome::gone;
    if (try_lock(files, fd.get(), directory) == LockOutcome::held_elsewhere) continue;
    // It may have been removed, and made again, since it was opened.
    struct ::stat opened {};
    struct ::stat named {};
    if (files.fstat(fd.get(), opened) != 0 || files.stat(directory, named, /*follow=*/true) != 0) {
      if (errno == ENOENT) return Outcome::gone;
      throw Error::from_errno(errno, "look at directory", directory);
    }
    if (opened.st_dev != named.st_dev || opened.st_ino != named.st_ino) continue;
    fd_ = std::move(fd);
    return Outcome::taken;
  }
  return Outcome::held_elsewhere;
}

Removal remove_if_dead(FileSystem& files, const std::string& path) {
  // Never followed, never waited for: anybody may put a link or a FIFO under such a name.
  constexpr int kFlags = O_NOFOLLOW | O_NONBLOCK;
  os::UninheritedFd fd = open_file(files, path, O_RDWR | kFlags);
  if (!fd && (errno == EACCES || errno == EPERM || errno == EROFS)) {
    fd = open_file(files, path, O_RDONLY | kFlags);
  }
  if (!fd) return errno == ENOENT ? Removal::gone : Removal::refused;
  struct ::stat status {};
  if (files.fstat(fd.get(), status) != 0) throw Error::from_errno(errno, "look at", path);
  if (!S_ISREG(status.st_mode)) return Removal::refused;
  // Whoever writes has an exclusive one; this can be had without being allowed to write.
  switch (try_lock(files, fd.get(), path, /*shared=*/true)) {
    case LockOutcome::held_elsewhere:
      return Removal::in_use;
    case LockOutcome::unsupported:
      return Removal::refused;
    case LockOutcome::taken:
      break;
  }
  // Its save may have renamed it, and let go of it, since it was opened.
  if (!still_named(files, fd.get(), path)) return Removal::gone;
  if (files.unlink(path) != 0) return errno == ENOENT ? Removal::gone : Removal::refused;
  return Removal::removed;
}

LeftoverScan remove_dead_leftovers(FileSystem& files, const SaveTarget& target) {
  LeftoverScan scan;
  std::vector<std::string> names;
  if (files.list(target.directory, names) != 0) {
    if (errno == ENOENT) return scan;
    throw Error::from_errno(errno, "list directory", target.directory);
  }
  for (const std::string& name : names) {
    if (name == target.temporary_name || name == target.earlier_temporary ||
        final_name_of_temporary(name) != target.final_name) {
      continue;
    }
    std::string path = path_in(target.directory, name);
    switch (remove_if_dead(files, path)) {
      case Removal::in_use:
        scan.in_use = true;
        break;
      case Removal::refused:
        scan.refused.push_back(std::move(path));
        break;
      case Removal::removed:
        log_of(target).info("removed {}, left by a dead process", path);
        break;
      case Removal::gone:
        break;
    }
  }
  return scan;
}

void report_busy(const SaveTarget& target, double waited_secs) {
  throw Error(ErrorCode::busy_elsewhere, "save to", path_in(target.directory, target.final_name),
              fmt::format("another checkpointer is still writing to the same name; waited {:g} "
                          "seconds for it",
                          waited_secs));
}

void report_locked(const SaveTarget& target, double waited_secs) {
  throw Error(ErrorCode::io, "lock directory", target.directory,
              fmt::format("somebody holds a lock (flock) on it, which a save takes for a moment "
                          "only; waited {:g} seconds for it: {}",
                          waited_secs, base::words_of_errno(EWOULDBLOCK)),
              EWOULDBLOCK);
}

void warn_of_refused(const SaveTarget& target, const LeftoverScan& scan) {
  for (const std::string& path : scan.refused) {
    log_of(target).warn(
        "{} looks like the leftover of a dead process but cannot be judged or removed", path);
  }
}

}  // namespace ckptring::store
