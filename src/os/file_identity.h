// Which file lies at a path, so that it can be known again.
#pragma once

#include <sys/stat.h>

#include <cstdint>

namespace ckptring::os {

/// All zeros: there is none. A file system gives the inode number of a removed file to the next one
/// at once, but not its time too. Goes through shared memory as it is.
struct FileIdentity {
  std::uint64_t device;
  std::uint64_t inode;
  std::uint64_t size;
  std::int64_t written_secs;  ///< the last change of its bytes; a rename is none
  std::int64_t written_nsecs;

  [[nodiscard]] static FileIdentity of(const struct ::stat& status) noexcept {
    return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size),
            status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
  }
  [[nodiscard]] bool exists() const noexcept { return inode != 0; }
  /// Whether `later`, found where this one was, is another file. Some file systems give one file
  /// another inode number when they have forgotten it, and some another time once it has reached
  /// the server; none does both.
  [[nodiscard]] bool is_replaced_by(const FileIdentity& later) const noexcept {
    return inode != later.inode &&
           (written_secs != later.written_secs || written_nsecs != later.written_nsecs);
  }
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

}  // namespace ckptring::os
