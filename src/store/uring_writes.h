// Writes through io_uring, straight from the caller's memory. No registered buffers: they would
// be charged to the locked-memory limit, cost start-up time and gain little with large blocks.
#pragma once

#include "store/pending_write.h"
#include "store/write_queue.h"

#include <liburing.h>
#include <sys/uio.h>

#include <memory>
#include <string>
#include <vector>

namespace ckptring::store {

class UringWrites final : public WriteQueue {
 public:
  struct Opened {
    std::unique_ptr<WriteQueue> queue;  ///< null: io_uring does not work here
    int error = 0;                      ///< then why
  };
  /// @param path of the file, for messages
  static Opened open(int fd, const std::string& path, unsigned depth, std::uint64_t unit);

  ~UringWrites() override;
  UringWrites(const UringWrites&) = delete;
  UringWrites& operator=(const UringWrites&) = delete;

  [[nodiscard]] std::uint64_t unit() const override { return unit_; }
  [[nodiscard]] std::size_t room() const override { return free_slots_.size(); }
  void submit(std::uint64_t token, std::uint64_t offset, const std::byte* data,
              std::uint64_t size) override;
  [[nodiscard]] int completion_fd() const override { return ring_.ring_fd; }
  void reap(std::vector<Done>& done) override;

 private:
  struct Slot {
    PendingWrite write;
    ::iovec piece{};
  };

  UringWrites(const ::io_uring& ring, int fd, const std::string& path, unsigned depth,
              std::uint64_t unit);
  /// 0, or -errno: io_uring does not work here.
  static int make(unsigned depth, ::io_uring& ring);
  static void end(::io_uring& ring);
  void queue(std::size_t slot);
  void flush();

  ::io_uring ring_;
  int fd_;
  std::string path_;
  std::uint64_t unit_;
  std::vector<Slot> slots_;
  std::vector<std::size_t> free_slots_;
};

}  // namespace ckptring::store
