// A file as a ByteSource.
#pragma once

#include "os/uninherited_fd.h"
#include "plan/byte_source.h"
#include "store/file_system.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace ckptring::store {

class FileSource final : public plan::ByteSource {
 public:
  /// See open_file_source.
  FileSource(FileSystem& files, os::UninheritedFd fd, std::string path, std::uint64_t size);

  [[nodiscard]] std::uint64_t size() const override { return size_; }
  [[nodiscard]] const std::string& path() const override { return path_; }
  /// Through the page cache.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override;

  [[nodiscard]] FileSystem& files() const noexcept { return files_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  [[noreturn]] void ends_too_early() const;

  FileSystem& files_;
  os::UninheritedFd fd_;
  std::string path_;
  std::uint64_t size_;
};

/// `files` outlives the source.
/// @throws Error not_found, permission, io, invalid_argument (a directory)
std::unique_ptr<FileSource> open_file_source(const std::string& path,
                                             FileSystem& files = system_files());

/// The file of this rank where `path` is a directory, else the file `path`.
/// @throws Error as above, but that a directory is none
std::unique_ptr<FileSource> open_checkpoint(const std::string& path, int rank,
                                            FileSystem& files = system_files());

}  // namespace ckptring::store
