// Writing to the log (see ckptring/log.h for where it goes).
#pragma once

#include <ckptring/log.h>

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <string_view>

namespace ckptring::base {

/// Hands a finished line to the sink. Lines of the checkpoint process, which carry their own
/// prefix, come in through here as well.
void write_log_line(LogLevel level, std::string_view line) noexcept;

/// Where lines go instead of stderr. Called in the thread that logs, which may hold anything, and
/// in several at a time: it must not wait. What it throws goes no further.
/// @return false: this line goes to stderr
using LogSink = bool (*)(LogLevel level, std::string_view line);
/// Replaces the sink. Null: stderr. The one before may be running yet.
void set_log_sink(LogSink sink) noexcept;

/// To stderr, whatever the sink and the level.
void print_log_line(LogLevel level, std::string_view line) noexcept;

/// For what is said once in a process.
class FirstTime {
 public:
  [[nodiscard]] bool operator()() noexcept {
    return !past_.test_and_set(std::memory_order_relaxed);  // orders nothing
  }

 private:
  std::atomic_flag past_;
};

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
