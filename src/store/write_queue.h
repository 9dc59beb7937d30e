// Several writes to one file in flight. Which way they take is chosen here.
#pragma once

#include "base/log.h"
#include "store/file_system.h"

#include <ckptring/config.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::store {

/// Driven by one thread. The destructor gives up what the kernel has not begun and waits for the
/// rest: after it nobody reads the memory of a write.
class WriteQueue {
 public:
  struct Done {
    std::uint64_t token;
    int error;  ///< 0: all bytes are on disk
  };

  virtual ~WriteQueue() = default;

  /// What offset, size and address of each write must be multiples of.
  [[nodiscard]] virtual std::uint64_t unit() const = 0;
  /// How many more writes may be submitted now.
  [[nodiscard]] virtual std::size_t room() const = 0;
  /// Requires room() > 0. `data` stays valid and unchanged until its token is reaped or
  /// the queue is gone.
  /// @throws Error
  virtual void submit(std::uint64_t token, std::uint64_t offset, const std::byte* data,
                      std::uint64_t size) = 0;
  /// Readable when `reap` may have something.
  [[nodiscard]] virtual int completion_fd() const = 0;
  /// Appends what has ended. Never blocks.
  /// @throws Error if the queue itself fails
  virtual void reap(std::vector<Done>& done) = 0;
};

/// The file that a queue is to be made for.
struct WriteQueueRequest {
  int fd;
  const std::string& path;               ///< for messages
  const CheckpointWriterConfig& config;  ///< mode, depth, threads
  /// Why O_DIRECT must not be used on it; empty: it may be tried.
  std::string direct_refusal;
  base::LogContext log;
};

/// The first of {O_DIRECT with io_uring, O_DIRECT from threads, page cache from threads} that
/// works for this file, or exactly the one that the configuration forces. The file has its final
/// size or more.
/// @throws Error invalid_argument if a forced mode does not work here
std::unique_ptr<WriteQueue> open_write_queue(FileSystem& files, const WriteQueueRequest& request);

}  // namespace ckptring::store
