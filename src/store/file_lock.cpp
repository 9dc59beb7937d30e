#include "store/file_lock.h"

#include <ckptring/error.h>

#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>

namespace ckptring::store {
namespace {

bool is_directory(FileSystem& files, int fd) {
  struct ::stat status {};
  return files.fstat(fd, status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

LockOutcome try_lock(FileSystem& files, int fd, const std::string& path, bool shared) {
  const int operation = (shared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  if (uninterrupted([&] { return files.flock(fd, operation); }) == 0) return LockOutcome::taken;
  const int why = errno;
  switch (why) {
    case EWOULDBLOCK:
      return LockOutcome::held_elsewhere;
    case ENOLCK:
    case ENOSYS:
    case EOPNOTSUPP:
      return LockOutcome::unsupported;
    case EBADF:
      // NFS gives an exclusive lock only on what is open for writing, which no directory ever is.
      // Everywhere else somebody has closed the descriptor behind our back.
      if (!shared && is_directory(files, fd)) return LockOutcome::unsupported;
      [[fallthrough]];
    default:
      throw Error::from_errno(why, "lock", path);
  }
}

bool still_named(FileSystem& files, int fd, const std::string& path) {
  struct ::stat open_file {};
  if (files.fstat(fd, open_file) != 0) throw Error::from_errno(errno, "look at", path);
  struct ::stat named {};
  if (files.stat(path, named, /*follow=*/false) != 0) {
    if (errno == ENOENT) return false;
    throw Error::from_errno(errno, "look at", path);
  }
  // The open file keeps its inode number from being given to another one.
  return named.st_dev == open_file.st_dev && named.st_ino == open_file.st_ino;
}

}  // namespace ckptring::store
