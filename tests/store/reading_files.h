// Files whose reads a test may count, cut short and fail, and of which it says what the page cache
// holds. Whether the file system below knows direct reads does not matter.
#pragma once

#include "store/forwarding_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

namespace ckptring::store::test {

class ReadingFiles final : public ForwardingFiles {
 public:
  struct Read {
    bool direct;
    std::uint64_t offset;
    std::size_t size;
    unsigned number;  ///< of all reads of its kind, from 0
  };
  /// What becomes of a read instead.
  struct Fault {
    int error = 0;
    std::size_t only_bytes = ~std::size_t{0};
  };

  // Set before anything is read.
  bool cold = false;
  int direct_open_error = 0;
  int mincore_error = 0;
  /// Called by one thread at a time.
  std::function<std::optional<Fault>(const Read&)> fault;

  [[nodiscard]] std::uint64_t direct_bytes() const { return direct_.bytes; }
  [[nodiscard]] std::uint64_t cached_bytes() const { return cached_.bytes; }
  [[nodiscard]] unsigned direct_reads() const { return direct_.reads; }
  [[nodiscard]] unsigned cached_reads() const { return cached_.reads; }

  int open(const std::string& path, int flags, mode_t mode) override {
    const bool direct = (flags & O_DIRECT) != 0;
    if (direct && direct_open_error != 0) {
      errno = direct_open_error;
      return -1;
    }
    const int fd = ForwardingFiles::open(path, flags & ~O_DIRECT, mode);
    if (direct) direct_fd_ = fd;
    return fd;
  }

  int mincore(void* /*address*/, std::size_t size, unsigned char* pages) override {
    if (mincore_error != 0) {
      errno = mincore_error;
      return -1;
    }
    std::fill_n(pages, (size + 4095) / 4096, cold ? 0 : 1);
    return 0;
  }

  ssize_t pread(int fd, void* data, std::size_t size, std::uint64_t offset) override {
    const bool direct = fd == direct_fd_;
    if (direct) {  // what every file system accepts
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 4096, 0u);
      EXPECT_EQ(size % 4096, 0u);
      EXPECT_EQ(offset % 4096, 0u);
    }
    Count& count = direct ? direct_ : cached_;
    std::optional<Fault> instead;
    {
      const std::scoped_lock lock(mutex_);
      if (fault) instead = fault({direct, offset, size, count.reads});
      ++count.reads;
    }
    if (instead && instead->error != 0) {
      errno = instead->error;
      return -1;
    }
    if (instead) size = std::min(size, instead->only_bytes);
    const ssize_t got = ForwardingFiles::pread(fd, data, size, offset);
    if (got > 0) count.bytes += static_cast<std::uint64_t>(got);
    return got;
  }

 private:
  struct Count {
    std::atomic<unsigned> reads{0};
    std::atomic<std::uint64_t> bytes{0};
  };

  std::mutex mutex_;
  std::atomic<int> direct_fd_{-1};
  Count direct_;
  Count cached_;
};

}  // namespace ckptring::store::test
