// Writing to the log (see ckptring/log.h for where it goes).
#pragma once

#include <ckptring/log.h>

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace ckptring::base {

/// Hands a finished line to the sink. Lines of the checkpoint process, which carry their own
/// prefix, come in through here as well.
void write_log_line(LogLevel level, std::string_view line) noexcept;

/// For what is said once in a process. Not std::call_once: the handler may come here again.
class FirstTime {
 public:
  [[nodiscard]] bool operator()() noexcept {
    return !past_.test_and_set(std::memory_order_relaxed);  // orders nothing
  }

 private:
  std::atomic_flag past_;
};

/// Whether the calling thread is in the log handler, which may have been called while that thread
/// did anything at all: what it holds, and what others wait for it to do, waits for the handler.
[[nodiscard]] bool in_log_handler() noexcept;

/// Of a mutex that is held while lines are logged.
/// @throws Error invalid_argument in the log handler, where somebody has it: perhaps this thread
[[nodiscard]] std::unique_lock<std::mutex> lock_unless_handler_waits(std::mutex& mutex,
                                                                     const char* operation);
/// Of whatever else waits for other threads of this library.
/// @throws Error invalid_argument in the log handler
void refuse_to_wait_in_log_handler(const char* operation);

/// Whom a line is about. Copy freely.
struct LogContext {
  int rank = 0;
  std::uint64_t save = 0;  ///< 0: no particular save

  template <class... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) const noexcept {
    write(LogLevel::error, format, fmt::make_format_args(args...));
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) const noexcept {
    write(LogLevel::warn, format, fmt::make_format_args(args...));
  }
  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) const noexcept {
    write(LogLevel::info, format, fmt::make_format_args(args...));
  }
  template <class... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) const noexcept {
    write(LogLevel::debug, format, fmt::make_format_args(args...));
  }

 private:
  void write(LogLevel level, fmt::string_view format, fmt::format_args args) const noexcept;
};

}  // namespace ckptring::base
