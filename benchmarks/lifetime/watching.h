// Watching a checkpoint process from outside, without asking it.
#pragma once

#include "support/stopwatch.h"

#include <sys/types.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace bench {

/// No wait of these measurements takes longer.
inline constexpr double kStuckSecs = 60;

/// Looks again and again. A condition that is asked for all the time is seen within microseconds.
/// @return the watch's time once `condition()` holds
/// @throws std::runtime_error naming `what` after kStuckSecs
template <class Condition>
double seconds_until(const Stopwatch& watch, const char* what, Condition&& condition) {
  while (!condition()) {
    if (watch.seconds() > kStuckSecs) throw std::runtime_error(std::string("waited for ") + what);
  }
  return watch.seconds();
}

/// What a process has submitted to the disk so far, in bytes; 0 once it is gone.
std::uint64_t written_by(::pid_t process);

/// What the kernel charged to the children that were waited for, in bytes.
/// @throws std::system_error
std::uint64_t bytes_written_by_ended_children();

/// Sees when the lock of a temporary becomes free: a dead process's writes in flight keep it.
class LockWatch {
 public:
  /// Of the temporary in `directory`.
  /// @throws std::runtime_error if there is none
  explicit LockWatch(const std::string& directory);
  ~LockWatch();
  LockWatch(const LockWatch&) = delete;
  LockWatch& operator=(const LockWatch&) = delete;

  /// Whether nobody holds it now. Ask no more once it was free: asking takes it for a moment.
  [[nodiscard]] bool is_free() const;

 private:
  int fd_ = -1;
};

}  // namespace bench
