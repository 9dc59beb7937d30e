// A few threads that each block in one write at a time. Works everywhere.
#pragma once

#include "os/own_thread.h"
#include "store/pending_write.h"
#include "store/write_queue.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::store {

class ThreadWrites final : public WriteQueue {
 public:
  /// @param dsync each write waits for the disk: what goes through the page cache must not be
  ///        released before, because after a failed fsync and a crash nobody would know
  /// @param path of the file, for messages
  /// @throws Error if not a single thread can be started
  ThreadWrites(FileSystem& files, int fd, const std::string& path, unsigned threads,
               std::uint64_t unit, bool dsync);
  ~ThreadWrites() override;
  ThreadWrites(const ThreadWrites&) = delete;
  ThreadWrites& operator=(const ThreadWrites&) = delete;

  [[nodiscard]] std::uint64_t unit() const override { return unit_; }
  [[nodiscard]] std::size_t room() const override { return capacity_ - unreaped_; }
  void submit(std::uint64_t token, std::uint64_t offset, const std::byte* data,
              std::uint64_t size) override;
  [[nodiscard]] int completion_fd() const override { return done_event_.get(); }
  void reap(std::vector<Done>& done) override;

 private:
  void write_until_stopped();
  void perform(PendingWrite& write) noexcept;

  FileSystem& files_;
  int fd_;
  std::string path_;
  std::uint64_t unit_;
  int rwf_flags_;
  os::UninheritedFd done_event_;
  std::size_t capacity_ = 0;
  std::size_t unreaped_ = 0;  // of the driving thread only

  std::mutex mutex_;
  std::condition_variable work_or_stop_;
  // Guarded by mutex_:
  std::deque<PendingWrite> waiting_;
  std::vector<Done> done_;  ///< room for all that may be under way
  bool stopping_ = false;

  std::vector<os::OwnThread> threads_;
};

}  // namespace ckptring::store
