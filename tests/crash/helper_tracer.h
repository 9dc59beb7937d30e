// Follows checkpoint processes through ptrace and acts at their system calls: lets them go on,
// kills, stops or holds the process, or makes the call fail.
//
// The trainer is this process. Its helper is `gated_drain`, which stops before it becomes
// ckptring-drain; so the tracer decides about every helper, also a restarted one, before its first
// instruction.
#pragma once

#include <sys/types.h>

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

namespace ckptring::test {

/// A helper that has stopped right before or right after a system call.
struct TracedCall {
  pid_t process;
  pid_t thread;
  std::uint64_t stop;  ///< 0, 1, ...: of this helper, over all of its threads, from its exec on
  bool entering;       ///< false: leaving
  long number;         ///< SYS_...
  std::array<std::uint64_t, 6> arguments;
  std::int64_t result;  ///< when leaving: as the kernel returns it, -errno for errors

  /// The text that an argument points to; "" if it cannot be read.
  [[nodiscard]] std::string text(unsigned argument) const;
};

/// What is to be done at a system call.
struct Verdict {
  enum class Kind {
    go_on,
    kill,  ///< SIGKILL: a call that is being entered does not happen
    stop,  ///< SIGSTOP, as from a shell; for helpers of one thread. It is followed no further
    hold,  ///< this thread gets no further: to everybody else it hangs in the call
    fail,  ///< only when entering: the call does not happen and returns an error
  };
  Kind kind = Kind::go_on;
  int errno_value = 0;  ///< of `fail`

  static Verdict go_on() { return {}; }
  static Verdict kill() { return {Kind::kill}; }
  static Verdict stop() { return {Kind::stop}; }
  static Verdict hold() { return {Kind::hold}; }
  static Verdict fail(int errno_value) { return {Kind::fail, errno_value}; }
};

/// Why this host does not let processes be followed; empty: it does.
std::string refusal_of_ptrace();

/// Called in the tracer's thread at each stop of one helper.
using Script = std::function<Verdict(const TracedCall&)>;

/// One at a time, in a process whose only children are the helpers of one checkpointer; outlives
/// that checkpointer.
class HelperTracer {
 public:
  HelperTracer();
  /// Waits until all helpers have ended; those that are held are killed.
  ~HelperTracer();
  HelperTracer(const HelperTracer&) = delete;
  HelperTracer& operator=(const HelperTracer&) = delete;

  /// New helpers stay at the gate until `release`. So they do from the beginning.
  /// @return the helper that passed it last; 0 if none has
  pid_t close_gate();
  /// Waits until a helper stands at the closed gate.
  /// @throws std::runtime_error if none comes within 30 s, or if this system refuses ptrace
  void wait_for_helper();
  /// Opens the gate: each helper takes the next script; those that come after the last one are
  /// not followed.
  void release(std::deque<Script> scripts);

  /// @throws std::runtime_error if ptrace was refused, or a dead helper was never collected
  void check() const;

 private:
  struct Thread {
    long number = 0;
    std::array<std::uint64_t, 6> arguments{};
    int injected_errno = 0;
  };
  struct Helper {
    pid_t process;
    Script script;
    bool executed = false;
    bool held = false;
    std::uint64_t stops = 0;
    std::map<pid_t, Thread> threads;
  };

  void follow();
  void on_end(pid_t id);
  static bool has_ended(pid_t process);
  void on_plain_stop(pid_t process);
  void on_trap(pid_t thread, int status);
  void on_call(pid_t thread);
  void resume(pid_t thread, int signal);
  void note_problem(std::string problem);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool gate_open_ = false;
  bool at_gate_ = false;
  pid_t passed_ = 0;
  bool stopping_ = false;
  std::deque<Script> scripts_;
  std::string problem_;

  // The tracing thread's own.
  std::optional<Helper> helper_;
  std::set<pid_t> seen_;
  std::thread thread_;
};

}  // namespace ckptring::test
