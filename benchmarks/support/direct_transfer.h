// The least that moving a file past the page cache can cost: direct requests through io_uring.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace bench {

/// A file that is open for direct transfers.
class DirectFile {
 public:
  /// @param flags of open, O_DIRECT is added
  /// @throws std::system_error, also where O_DIRECT is refused
  DirectFile(std::string path, int flags);
  ~DirectFile();
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  /// The request for `size` bytes at `offset`, in the place of `slot`: a number below `depth` that
  /// no other request in flight has.
  using Prepare = std::function<void(::io_uring_sqe* entry, unsigned slot, std::uint64_t offset,
                                     std::size_t size)>;

  /// Goes through `bytes` from the file's first one, in pieces of `piece` bytes, `depth` in flight.
  /// @throws std::system_error, also for a transfer that is shorter than asked for
  void transfer(std::uint64_t bytes, std::size_t piece, unsigned depth,
                const Prepare& prepare) const;

 private:
  std::string path_;
  int fd_;
};

}  // namespace bench
