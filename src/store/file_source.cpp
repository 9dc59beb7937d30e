#include "store/file_source.h"

#include "os/uninherited_fd.h"
#include "store/file_system.h"

#include <ckptring/error.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace ckptring::store {
namespace {

class FileSource final : public plan::ByteSource {
 public:
  FileSource(os::UninheritedFd fd, std::string path, std::uint64_t size)
      : fd_(std::move(fd)), path_(std::move(path)), size_(size) {}

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] const std::string& path() const override { return path_; }

  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset > size_ || bytes.size() > size_ - offset) too_short();
    while (!bytes.empty()) {
      const ssize_t got = uninterrupted([&] {
        return ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      });
      if (got < 0) throw Error::from_errno(errno, "read", path_);
      if (got == 0) too_short();  // somebody truncated it since it was opened
      bytes = bytes.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }

 private:
  [[noreturn]] void too_short() const {
    throw Error(ErrorCode::damaged, "read", path_, "the file ends too early");
  }

  os::UninheritedFd fd_;
  std::string path_;
  std::uint64_t size_;
};

}  // namespace

std::unique_ptr<plan::ByteSource> open_file_source(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error(ErrorCode::invalid_argument, "open", path, "this is not a path");
  }
  // O_NONBLOCK: opening a FIFO that nobody writes to must not hang. It means nothing to files.
  os::UninheritedFd fd = open_file(system_files(), path, O_RDONLY | O_NONBLOCK);
  if (!fd) throw Error::from_errno(errno, "open", path);
  struct ::stat status {};
  if (::fstat(fd.get(), &status) != 0) throw Error::from_errno(errno, "look at", path);
  if (S_ISDIR(status.st_mode)) {
    throw Error(ErrorCode::invalid_argument, "open", path, "it is a directory, not a file", EISDIR);
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::invalid_argument, "open", path, "it is not a regular file");
  }
  return std::make_unique<FileSource>(std::move(fd), path,
                                      static_cast<std::uint64_t>(status.st_size));
}

}  // namespace ckptring::store
