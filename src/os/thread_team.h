// A few threads that wait to run the same function at the same time.
#pragma once

#include "os/own_thread.h"

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

namespace ckptring::os {

class ThreadTeam {
 public:
  /// `count` threads in all, the caller of run included; at least 1. `name` and `priority` are the
  /// others': see OwnThread.
  /// @throws Error out_of_memory if the system allows no more threads
  ThreadTeam(unsigned count, const char* name, OwnThread::Priority priority);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  [[nodiscard]] unsigned count() const noexcept {
    return static_cast<unsigned>(threads_.size()) + 1;
  }

  /// Runs `work` once in each thread, the caller's included; returns when all have returned, or
  /// throws what the first of them threw. One call at a time.
  void run(const std::function<void()>& work);

 private:
  void serve();
  void do_part(const std::function<void()>& work) noexcept;
  void end() noexcept;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  const std::function<void()>* work_ = nullptr;
  std::exception_ptr failure_;  ///< of the work at hand
  std::uint64_t round_ = 0;
  unsigned running_ = 0;
  bool stop_ = false;
  std::vector<OwnThread> threads_;
};

}  // namespace ckptring::os
