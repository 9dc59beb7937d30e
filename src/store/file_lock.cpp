#include "store/file_lock.h"

#include <ckptring/error.h>

#include <sys/file.h>

namespace ckptring::store {

LockOutcome try_lock(FileSystem& files, int fd, const std::string& path, bool shared) {
  const int operation = (shared ? LOCK_SH : LOCK_EX) | LOCK_NB;
  if (uninterrupted([&] { return files.flock(fd, operation); }) == 0) return LockOutcome::taken;
  switch (errno) {
    case EWOULDBLOCK:
      return LockOutcome::held_elsewhere;
    case ENOLCK:
    case ENOSYS:
    case EOPNOTSUPP:
    case EBADF:  // NFS gives an exclusive lock only on what is open for writing
      return LockOutcome::unsupported;
    default:
      throw Error::from_errno(errno, "lock", path);
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
