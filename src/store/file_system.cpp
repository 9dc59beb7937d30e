#include "store/file_system.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <limits>
#include <string_view>
#include <vector>

namespace ckptring::store {
namespace {

class SystemFiles final : public FileSystem {
 public:
  int open(const std::string& path, int flags, mode_t mode) override {
    return ::open(path.c_str(), flags, mode);
  }
  int stat(const std::string& path, struct ::stat& out, bool follow) override {
    return follow ? ::stat(path.c_str(), &out) : ::lstat(path.c_str(), &out);
  }
  int fstat(int fd, struct ::stat& out) override { return ::fstat(fd, &out); }
  int statfs(int fd, struct ::statfs& out) override { return ::fstatfs(fd, &out); }
  int statx(int fd, unsigned mask, struct ::statx& out) override {
    return ::statx(fd, "", AT_EMPTY_PATH, mask, &out);
  }
  int set_flags(int fd, int flags) override { return ::fcntl(fd, F_SETFL, flags); }
  int flock(int fd, int operation) override { return ::flock(fd, operation); }
  int fallocate(int fd, std::uint64_t bytes) override {
    if (!fits(bytes)) return -1;
    return ::fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  }
  int ftruncate(int fd, std::uint64_t bytes) override {
    if (!fits(bytes)) return -1;
    return ::ftruncate(fd, static_cast<off_t>(bytes));
  }
  ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) override {
    if (!fits(offset)) return -1;
    return ::pread(fd, data, size, static_cast<off_t>(offset));
  }
  int mincore(void* address, std::size_t size, unsigned char* pages) override {
    return ::mincore(address, size, pages);
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    if (!fits(offset)) return -1;
    if (rwf_flags == 0) return ::pwrite(fd, data, size, static_cast<off_t>(offset));
    // The kernel only reads through iov_base here; the type is shared with reading calls.
    const ::iovec piece{const_cast<void*>(data),
                        size};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    return ::pwritev2(fd, &piece, 1, static_cast<off_t>(offset), rwf_flags);
  }
  int fsync(int fd) override { return ::fsync(fd); }
  int rename(const std::string& from, const std::string& to) override {
    return ::rename(from.c_str(), to.c_str());
  }
  int unlink(const std::string& path) override { return ::unlink(path.c_str()); }
  int mkdir(const std::string& path, mode_t mode) override { return ::mkdir(path.c_str(), mode); }
  int rmdir(const std::string& path) override { return ::rmdir(path.c_str()); }
  int list(const std::string& path, std::vector<std::string>& names) override {
    os::UninheritedFd directory = open_file(*this, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (!directory) return -1;
    names.clear();
    std::vector<char> entries(kEntriesBytes);  // on the heap: a thread's stack may be small
    for (;;) {
      const ssize_t bytes = ::getdents64(directory.get(), entries.data(), entries.size());
      if (bytes == 0) return 0;
      if (bytes < 0) {
        const int why = errno;
        directory.reset();
        errno = why;
        return -1;
      }
      for (ssize_t at = 0; at < bytes;) {
        const auto* const entry = reinterpret_cast<const ::dirent64*>(entries.data() + at);
        const std::string_view name = static_cast<const char*>(entry->d_name);
        if (name != "." && name != "..") names.emplace_back(name);
        at += entry->d_reclen;
      }
    }
  }
  [[nodiscard]] bool allows_raw_io() const override { return true; }

 private:
  static constexpr std::size_t kEntriesBytes = 32768;  ///< names that are fetched together

  static bool fits(std::uint64_t offset) noexcept {
    if (offset <= static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) return true;
    errno = EFBIG;
    return false;
  }
};

}  // namespace

FileSystem& system_files() {
  // Never destroyed: saves may be under way while the process exits.
  static SystemFiles& files = *new SystemFiles;
  return files;
}

}  // namespace ckptring::store
