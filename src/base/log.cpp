#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iterator>

namespace ckptring {
namespace {

constexpr std::string_view kLevelNames[] = {"off", "error", "warn", "info", "debug"};

LogLevel level_from_environment() noexcept {
  const char* const text = std::getenv("CKPTRING_LOG");
  if (text == nullptr) return LogLevel::warn;
  for (int level = 0; level < 5; ++level) {
    if (kLevelNames[level] == text) return static_cast<LogLevel>(level);
  }
  return LogLevel::warn;
}

// LEVEL edge: none. The level is a hint; a line more or less around the change is harmless.
std::atomic<int>& level_now() noexcept {
  static std::atomic<int> level{static_cast<int>(level_from_environment())};
  return level;
}

/// SINK edge: stored with release, loaded with acquire by whoever logs: what the sink needs is
/// there. Null: stderr.
constinit std::atomic<base::LogSink> sink_now{nullptr};

}  // namespace

void set_log_level(LogLevel level) {
  level_now().store(static_cast<int>(level), std::memory_order_relaxed);  // LEVEL
}

LogLevel log_level() noexcept {
  return static_cast<LogLevel>(level_now().load(std::memory_order_relaxed));  // LEVEL
}

namespace base {

void set_log_sink(LogSink sink) noexcept { sink_now.store(sink, std::memory_order_release); }

void print_log_line(LogLevel level, std::string_view line) noexcept {
  try {
    fmt::memory_buffer text;  // takes no memory for a line of the usual length
    fmt::format_to(std::back_inserter(text), "ckptring {} {}\n",
                   kLevelNames[static_cast<int>(level)], line);
    // stderr may be gone or full; a log line is not worth failing for.
    (void)std::fwrite(text.data(), 1, text.size(), stderr);
  } catch (...) {  // NOLINT(bugprone-empty-catch): no memory for a very long one
  }
}

void write_log_line(LogLevel level, std::string_view line) noexcept {
  if (level > log_level() || level == LogLevel::off) return;
  try {
    const LogSink sink = sink_now.load(std::memory_order_acquire);  // SINK
    if (sink != nullptr && sink(level, line)) return;
  } catch (...) {  // NOLINT(bugprone-empty-catch): no memory; stderr needs none
  }
  print_log_line(level, line);
}

void LogContext::write(LogLevel level, fmt::string_view format,
                       fmt::format_args args) const noexcept {
  if (level > log_level()) return;
  try {
    fmt::memory_buffer line;  // as above
    const auto out = std::back_inserter(line);
    if (save == 0) {
      fmt::format_to(out, "[rank {}] ", rank);
    } else {
      fmt::format_to(out, "[rank {}] [save {}] ", rank, save);
    }
    fmt::vformat_to(out, format, args);
    write_log_line(level, {line.data(), line.size()});
  } catch (...) {  // NOLINT(bugprone-empty-catch): as above
  }
}

}  // namespace base
}  // namespace ckptring
