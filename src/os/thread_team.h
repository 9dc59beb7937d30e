// A few threads that wait to run the same function at the same time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ckptring::os {

class ThreadTeam {
 public:
  enum class Priority {
    foreground,  ///< somebody waits for the work
    background,  ///< it goes on beside other work: see background_thread.h
  };

  /// `count` threads in all, the caller of run included; at least 1. `name` and `priority` are the
  /// others': the name, a literal of up to 15 characters, is for top and gdb.
  /// @throws std::system_error if the system allows no more threads
  ThreadTeam(unsigned count, const char* name, Priority priority);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  [[nodiscard]] unsigned count() const noexcept {
    return static_cast<unsigned>(threads_.size()) + 1;
  }

  /// Runs `work` once in each thread, the caller's included; returns when all have returned.
  /// `work` must not throw. One call at a time.
  void run(const std::function<void()>& work);

 private:
  void serve();
  void end() noexcept;

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
  std::uint64_t round_ = 0;
  unsigned running_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace ckptring::os
