#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>

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

struct Sink {
  std::mutex mutex;
  LogHandler handler;
  std::atomic<int> level{static_cast<int>(level_from_environment())};
};

// Never destroyed: background threads may log while the process exits.
Sink& sink() noexcept {
  static Sink& instance = *new Sink;
  return instance;
}

}  // namespace

void set_log_handler(LogHandler handler) {
  const std::scoped_lock lock(sink().mutex);
  sink().handler = std::move(handler);
}

// LEVEL edge: none. The level is a hint; a line more or less around the change is harmless.
void set_log_level(LogLevel level) {
  sink().level.store(static_cast<int>(level), std::memory_order_relaxed);
}

LogLevel log_level() noexcept {
  return static_cast<LogLevel>(sink().level.load(std::memory_order_relaxed));
}

namespace base {

void write_log_line(LogLevel level, std::string_view line) noexcept {
  if (level > log_level() || level == LogLevel::off) return;
  try {
    const std::scoped_lock lock(sink().mutex);
    if (sink().handler) {
      sink().handler(level, line);
      return;
    }
    const std::string text =
        fmt::format("ckptring {} {}\n", kLevelNames[static_cast<int>(level)], line);
    // stderr may be gone or full; a log line is not worth failing for.
    (void)std::fwrite(text.data(), 1, text.size(), stderr);
  } catch (...) {  // NOLINT(bugprone-empty-catch): logging must never bring the trainer down
  }
}

void LogContext::write(LogLevel level, fmt::string_view format,
                       fmt::format_args args) const noexcept {
  if (level > log_level()) return;
  try {
    std::string line = save == 0 ? fmt::format("[rank {}] ", rank)
                                 : fmt::format("[rank {}] [save {}] ", rank, save);
    line += fmt::vformat(format, args);
    write_log_line(level, line);
  } catch (...) {  // NOLINT(bugprone-empty-catch): as above
  }
}

}  // namespace base
}  // namespace ckptring
