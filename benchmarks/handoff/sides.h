// The two sides of a hand-off: two threads, or two processes, each on a processor of its own.
#pragma once

#include <pthread.h>

#include <array>
#include <cstdint>
#include <functional>

namespace bench {

enum class Apart { threads, processes };

/// What one side took for the part of its work that is timed.
struct SideTimes {
  std::uint64_t began_ns = 0;  ///< CLOCK_MONOTONIC
  std::uint64_t ended_ns = 0;
  double cpu_seconds = 0;    ///< user and system time of its thread
  std::uint64_t sleeps = 0;  ///< how often it gave up its processor to wait
};

/// Runs from construction on, for the calling thread.
class SideClock {
 public:
  SideClock();
  /// Since construction.
  [[nodiscard]] SideTimes times() const;

 private:
  std::uint64_t began_ns_;
  std::uint64_t sleeps_;
  double cpu_seconds_;  ///< read last, so that it begins here
};

/// Where both sides wait for each other. Its barrier is never destroyed: that would wait for a side
/// that was killed inside, and it owns nothing but its bytes.
class Meeting {
 public:
  /// @throws std::system_error
  Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;
  /// Returns once both sides have called it. Sleeps until then.
  void wait() noexcept;

 private:
  ::pthread_barrier_t barrier_{};
};

struct BothTimes {
  SideTimes first;
  SideTimes second;
  /// From the beginning of the earlier one to the end of the later one.
  [[nodiscard]] double seconds() const;
};

using Side = std::function<SideTimes(Meeting&)>;

/// Runs both sides to their end, in processes forked from this one: one for each side, or one with
/// a thread for each. `open` is called in each process before its side is. A side that fails, dies,
/// or takes more than two minutes ends the other one.
/// @throws std::runtime_error naming the side and what became of it
BothTimes run_apart(Apart apart, const std::function<void()>& open, const Side& first,
                    const Side& second);

/// The processors that the sides run on: the first two of this process that are not one core's.
/// @throws std::runtime_error if it may use one only
std::array<int, 2> processors_of_sides();

}  // namespace bench
