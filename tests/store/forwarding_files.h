// A FileSystem that hands every call on to the kernel's; tests override what they watch or fail.
#pragma once

#include "store/file_system.h"

namespace ckptring::store::test {

class ForwardingFiles : public FileSystem {
 public:
  int open(const std::string& path, int flags, mode_t mode) override {
    return files_.open(path, flags, mode);
  }
  int stat(const std::string& path, struct ::stat& out, bool follow) override {
    return files_.stat(path, out, follow);
  }
  int fstat(int fd, struct ::stat& out) override { return files_.fstat(fd, out); }
  int statfs(int fd, struct ::statfs& out) override { return files_.statfs(fd, out); }
  int statx(int fd, unsigned mask, struct ::statx& out) override {
    return files_.statx(fd, mask, out);
  }
  int set_flags(int fd, int flags) override { return files_.set_flags(fd, flags); }
  int flock(int fd, int operation) override { return files_.flock(fd, operation); }
  int fallocate(int fd, std::uint64_t bytes) override { return files_.fallocate(fd, bytes); }
  int ftruncate(int fd, std::uint64_t bytes) override { return files_.ftruncate(fd, bytes); }
  ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) override {
    return files_.pread(fd, data, size, offset);
  }
  int mincore(void* address, std::size_t size, unsigned char* pages) override {
    return files_.mincore(address, size, pages);
  }
  ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                 int rwf_flags) override {
    return files_.pwrite(fd, data, size, offset, rwf_flags);
  }
  int fsync(int fd) override { return files_.fsync(fd); }
  int rename(const std::string& from, const std::string& to) override {
    return files_.rename(from, to);
  }
  int unlink(const std::string& path) override { return files_.unlink(path); }
  int mkdir(const std::string& path, mode_t mode) override { return files_.mkdir(path, mode); }
  int rmdir(const std::string& path) override { return files_.rmdir(path); }
  int list(const std::string& path, std::vector<std::string>& names) override {
    return files_.list(path, names);
  }

 private:
  FileSystem& files_ = system_files();
};

}  // namespace ckptring::store::test
