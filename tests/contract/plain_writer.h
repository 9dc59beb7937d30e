// A custom writer as a user would write one: a temporary beside the file, then a rename.
#pragma once

#include <ckptring/writer.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace ckptring::test {

class PlainWriter final : public CheckpointWriter {
 public:
  void begin(const CheckpointDescription& checkpoint) override {
    final_ = checkpoint.final_path;
    part_ = final_ + ".part";
    left_ = checkpoint.total_bytes;
    at_ = 0;
    std::filesystem::create_directories(checkpoint.directory);
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("open");
  }
  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset != at_ || bytes.size() > left_) throw std::logic_error("bytes out of order");
    at_ += bytes.size();
    left_ -= bytes.size();
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0) fail("write");
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }
  void commit() override {
    if (left_ != 0) throw std::logic_error("bytes missing at commit");
    if (::fsync(fd_) != 0) fail("fsync");
    close();
    std::filesystem::rename(part_, final_);
  }
  void abort() noexcept override {
    close();
    (void)std::remove(part_.c_str());
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::system_error(errno, std::generic_category(), std::string(what) + " " + part_);
  }
  void close() noexcept {
    if (fd_ >= 0) (void)::close(fd_);
    fd_ = -1;
  }
  std::string final_;
  std::string part_;
  std::uint64_t left_ = 0;
  std::uint64_t at_ = 0;
  int fd_ = -1;
};

}  // namespace ckptring::test
