#include "store/temporary_file.h"

#include "base/log.h"
#include "store/file_lock.h"
#include "store/leftovers.h"
#include "store/missing.h"

#include <ckptring/error.h>

#include <cerrno>
#include <utility>

namespace ckptring::store {
namespace {

// Each round is lost only to somebody who removes a directory or the file in just that moment.
constexpr int kAttempts = 16;
constexpr mode_t kFileMode = 0666;  // the process's umask applies

}  // namespace

TemporaryFile::TemporaryFile(FileSystem& files, const SaveTarget& target,
                             SaveDirectories& directories)
    : files_(files),
      target_(target),
      directories_(directories),
      path_(path_in(target.directory, target.temporary_name)) {}

TemporaryFile::Acquired TemporaryFile::acquire(Beginning beginning) {
  if (beginning != Beginning::fresh) may_exist_ = true;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // The descriptor of an earlier call is kept: it may not be opened twice.
    if (!fd_) {
      const bool may_exist = beginning != Beginning::fresh;
      if (!may_exist || !open_existing()) {
        if (beginning == Beginning::renaming) {
          if (directories_.open()) return Acquired::yes;
          throw not_found(files_, "open directory", target_.directory);
        }
        // Never made anew: a further successor would take it for the one that was lost.
        if (beginning == Beginning::completing) report_lost();
        if (const std::optional<Acquired> refused = create()) return *refused;
        if (!fd_) continue;
      }
    }
    const LockOutcome outcome = try_lock(files_, fd_.get(), path_);
    if (outcome == LockOutcome::held_elsewhere) return Acquired::predecessor_writing;
    locked_ = outcome == LockOutcome::taken;
    if (!still_named(files_, fd_.get(), path_)) {
      fd_.reset();
    } else if (directories_.open()) {
      return Acquired::yes;
    }
  }
  if (!dangling_link_in(files_, target_.directory).empty()) {
    throw not_found(files_, "create", path_);
  }
  throw Error(ErrorCode::io, "create", path_, "somebody keeps removing the file or its directory");
}

void TemporaryFile::report_lost() const {
  throw Error(ErrorCode::io, "resume writing", path_,
              "the file, with what was already written, was removed by somebody");
}

bool TemporaryFile::open_existing() {
  // O_NONBLOCK: whatever else may have got this name, it must not make us wait.
  fd_ = open_file(files_, path_, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (!fd_) {
    if (errno == ENOENT) return false;
    if (errno == ELOOP) {
      throw Error(ErrorCode::io, "open", path_, "it is a symbolic link and is not followed", ELOOP);
    }
    throw Error::from_errno(errno, "open", path_);
  }
  struct ::stat status {};
  if (files_.fstat(fd_.get(), status) != 0) throw Error::from_errno(errno, "look at", path_);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::io, "open", path_, "it is not a regular file");
  }
  // Some kernels let io_uring give up early on a file that is marked like this.
  if (files_.set_flags(fd_.get(), 0) != 0) throw Error::from_errno(errno, "open", path_);
  return true;
}

/// Why it may not be made now. Without a reason and without a file: the directory is gone.
std::optional<TemporaryFile::Acquired> TemporaryFile::create() {
  directories_.make();
  DirectoryGuard guard;
  switch (guard.take(files_, target_.directory)) {
    case DirectoryGuard::Outcome::gone:
      return std::nullopt;
    case DirectoryGuard::Outcome::held_elsewhere:
      return Acquired::directory_in_use;
    case DirectoryGuard::Outcome::taken:
      break;
  }
  const LeftoverScan scan = remove_dead_leftovers(files_, target_);
  if (scan.in_use) return Acquired::name_in_use;
  warn_of_refused(target_, scan);
  // Also if this fails: it may make the file, and then find no descriptor that can be kept.
  const bool existed = std::exchange(may_exist_, true);
  fd_ = open_file(files_, path_, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, kFileMode);
  if (!fd_) {
    const int why = errno;
    if (why == EEXIST) may_exist_ = existed;  // it is somebody else's
    if (why == ENOENT) return std::nullopt;
    throw Error::from_errno(why, "create", path_);
  }
  created_ = true;
  // Under the guard nobody else tries to lock it for longer than a look; `acquire` tries again.
  locked_ = try_lock(files_, fd_.get(), path_) == LockOutcome::taken;
  return std::nullopt;
}

void TemporaryFile::reserve(std::uint64_t bytes) {
  if (bytes == 0) return;
  if (uninterrupted([&] { return files_.fallocate(fd_.get(), bytes); }) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    throw Error::from_errno(errno, "reserve disk space for", path_);
  }
  struct ::stat status {};
  if (files_.fstat(fd_.get(), status) != 0) throw Error::from_errno(errno, "look at", path_);
  if (static_cast<std::uint64_t>(status.st_size) >= bytes) return;
  if (uninterrupted([&] { return files_.ftruncate(fd_.get(), bytes); }) != 0) {
    throw Error::from_errno(errno, "set the size of", path_);
  }
}

void TemporaryFile::remove() noexcept {
  if (may_exist_ && files_.unlink(path_) != 0 && errno != ENOENT && errno != ENOTDIR) {
    log_of(target_).warn("cannot remove {}: errno {}", path_, errno);
  }
  close();
}

}  // namespace ckptring::store
