// A line on stderr that shows how far a long piece of work has come.
#pragma once

#include <chrono>
#include <cstdint>

namespace ckptring::command {

/// Draws nothing unless stderr is a terminal. One thread.
class ProgressBar {
 public:
  explicit ProgressBar(std::uint64_t total_bytes);
  /// Removes the line.
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void advance(std::uint64_t bytes);
  /// Makes room for other output; the next advance draws the line again.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  std::uint64_t total_;
  std::uint64_t done_ = 0;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point begun_ = Clock::now();
  Clock::time_point next_draw_ = begun_;
};

}  // namespace ckptring::command
