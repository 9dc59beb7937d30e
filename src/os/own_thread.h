// Threads of this library, the only ones that it makes. Nobody else's code runs in them, but for
// the one that calls the log handler: what they leave behind in thread-local state (a current
// device, for example) is nobody's business.
#pragma once

#include <functional>
#include <thread>

namespace ckptring::os {

class OwnThread {
 public:
  enum class Priority {
    foreground,  ///< somebody waits for the work
    /// It goes on beside other work: waking the thread up never pushes another one off its core
    /// before that one's time is over (SCHED_BATCH). So `save`, which wakes such a thread, returns
    /// first even where all cores are busy. Where the program has chosen another policy for its
    /// threads, or the system refuses, nothing is changed.
    background,
  };

  /// None.
  OwnThread() noexcept = default;
  /// Runs `work`. The thread takes no signal that is meant for the program (signals_blocked.h), and
  /// is not held on the one core of a maker that was pinned (affinity.h). What `work` throws ends
  /// the thread, and is logged, but ends nothing else: whoever waits for the thread's doing must be
  /// told by `work` itself.
  /// @param name  for top and gdb, at most 15 characters; a literal
  /// @throws Error out_of_memory if the system allows no more threads
  OwnThread(const char* name, Priority priority, std::function<void()> work);
  OwnThread(OwnThread&&) noexcept = default;
  OwnThread& operator=(OwnThread&& other) noexcept;
  /// Waits for the end of the work.
  ~OwnThread();

  [[nodiscard]] bool joinable() const noexcept { return thread_.joinable(); }
  void join() { thread_.join(); }
  void detach() { thread_.detach(); }

 private:
  std::thread thread_;
};

/// Runs `work`. What it throws is logged as met by the thread of this name, and goes no further.
void run_and_log_failure(const char* name, const std::function<void()>& work) noexcept;

/// Whether the calling thread is one, in which nobody else's code runs.
[[nodiscard]] bool is_own_thread() noexcept;
/// From now on somebody else's code runs in the calling thread.
void lend_this_thread() noexcept;

/// Runs `work`, which must not throw, in one that is made for it, and waits until it has returned.
/// In the calling thread if the system allows no more threads.
void run_in_own_thread(const char* name, const std::function<void()>& work) noexcept;

}  // namespace ckptring::os
