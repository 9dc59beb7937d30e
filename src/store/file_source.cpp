#include "store/file_source.h"

#include "store/directories.h"
#include "store/missing.h"
#include "store/temporary_name.h"

#include <ckptring/error.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

namespace ckptring::store {

FileSource::FileSource(FileSystem& files, os::UninheritedFd fd, std::string path,
                       std::uint64_t size)
    : files_(files), fd_(std::move(fd)), path_(std::move(path)), size_(size) {}

void FileSource::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  if (offset > size_ || bytes.size() > size_ - offset) ends_too_early();
  while (!bytes.empty()) {
    const ssize_t got =
        uninterrupted([&] { return files_.pread(fd_.get(), bytes.data(), bytes.size(), offset); });
    if (got < 0) throw Error::from_errno(errno, "read", path_);
    if (got == 0) ends_too_early();  // somebody truncated it since it was opened
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void FileSource::ends_too_early() const {
  throw Error(ErrorCode::damaged, "read", path_, "the file ends too early");
}

std::unique_ptr<FileSource> open_file_source(const std::string& path, FileSystem& files) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw Error(ErrorCode::invalid_argument, "open", path, "this is not a path");
  }
  // O_NONBLOCK: opening a FIFO that nobody writes to must not hang. It means nothing to files.
  os::UninheritedFd fd = open_file(files, path, O_RDONLY | O_NONBLOCK);
  if (!fd) throw error_at(files, errno, "open", path);
  struct ::stat status {};
  if (files.fstat(fd.get(), status) != 0) throw Error::from_errno(errno, "look at", path);
  if (S_ISDIR(status.st_mode)) {
    throw Error(ErrorCode::invalid_argument, "open", path, "it is a directory, not a file", EISDIR);
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::invalid_argument, "open", path, "it is not a regular file");
  }
  return std::make_unique<FileSource>(files, std::move(fd), path,
                                      static_cast<std::uint64_t>(status.st_size));
}

std::unique_ptr<FileSource> open_checkpoint(const std::string& path, int rank, FileSystem& files) {
  struct ::stat status {};
  if (files.stat(path, status, /*follow=*/true) != 0 || !S_ISDIR(status.st_mode)) {
    try {
      return open_file_source(path, files);
    } catch (const Error& error) {
      if (error.errno_value() != EISDIR) throw;  // else a save has made it in this moment
    }
  }
  return open_file_source(path_in(path, final_name(rank)), files);
}

}  // namespace ckptring::store
