// Writing to the log (see ckptring/log.h for where it goes).
#pragma once

#include <ckptring/log.h>

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace ckptring::base {

/// Hands a finished line to the sink. Lines of the checkpoint process, which carry their own
/// prefix, come in through here as well.
void write_log_line(LogLevel level, std::string_view line) noexcept;

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
