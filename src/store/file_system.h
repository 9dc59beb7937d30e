// Every file operation of a save, behind one narrow seam, so that a test can record them, fail
// them, or drop what was not synced.
#pragma once

#include "os/new_fd.h"
#include "os/uninherited_fd.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ckptring::store {

/// Thin: each call is one system call. Returns -1 with errno set on failure, as the call does.
/// Implementations are thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual int open(const std::string& path, int flags, mode_t mode = 0) = 0;
  virtual int stat(const std::string& path, struct ::stat& out, bool follow) = 0;
  virtual int fstat(int fd, struct ::stat& out) = 0;
  virtual int statfs(int fd, struct ::statfs& out) = 0;
  virtual int statx(int fd, unsigned mask, struct ::statx& out) = 0;
  /// F_SETFL.
  virtual int set_flags(int fd, int flags) = 0;
  virtual int flock(int fd, int operation) = 0;
  virtual int fallocate(int fd, std::uint64_t bytes) = 0;
  virtual int ftruncate(int fd, std::uint64_t bytes) = 0;
  virtual ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) = 0;
  /// Which pages of [address, address + size) of a mapped file are in the page cache: bit 0 of each
  /// of `pages`.
  virtual int mincore(void* address, std::size_t size, unsigned char* pages) = 0;
  virtual ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                         int rwf_flags) = 0;
  virtual int fsync(int fd) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int mkdir(const std::string& path, mode_t mode) = 0;
  virtual int rmdir(const std::string& path) = 0;
  /// Names in a directory, without "." and "..".
  virtual int list(const std::string& path, std::vector<std::string>& names) = 0;
  /// Whether writes may bypass this seam (io_uring on the raw descriptor).
  [[nodiscard]] virtual bool allows_raw_io() const { return false; }
};

/// The kernel's.
FileSystem& system_files();

/// Repeats a system call while a signal interrupts it.
template <class Call>
auto uninterrupted(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Opens with O_CLOEXEC, as 3 or more; an empty descriptor with errno set on failure. A forked
/// child does not get it: locks belong to open files, so a data loader would hold on to them.
[[nodiscard]] inline os::UninheritedFd open_file(FileSystem& files, const std::string& path,
                                                 int flags, mode_t mode = 0) {
  return os::UninheritedFd::made_slowly([&] {
    os::UniqueFd fd = os::new_fd(
        [&] { return uninterrupted([&] { return files.open(path, flags | O_CLOEXEC, mode); }); });
    // If it has to be opened once more, it is there.
    if (fd) flags &= ~(O_CREAT | O_EXCL);
    return fd;
  });
}

}  // namespace ckptring::store
