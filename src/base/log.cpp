#include "base/log.h"

#include <ckptring/error.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>

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

/// More than a burst; what a handler that hangs may cost.
constexpr std::size_t kMostWaiting = 4096;

struct Line {
  LogLevel level;
  std::string text;
};

/// Whether it is this thread's turn to call the handler.
thread_local bool in_turn = false;

/// Nobody's code but this file's runs while `mutex` is held, and nobody waits for a handler: a line
/// that comes while one runs in another thread is left to that thread. So a handler may call into
/// this library, and may itself wait for a thread that logs.
struct Sink {
  std::mutex mutex;
  std::shared_ptr<LogHandler> handler;  ///< null: stderr
  bool busy = false;                    ///< a handler runs, in one thread
  std::list<Line> waiting;              ///< for that thread; empty it takes no memory
  /// ENDED edge: counted up by the thread that a handler ran in, with release, and waited for with
  /// acquire by whoever has replaced that handler: what it did has been done.
  std::atomic<std::uint32_t> ended{0};
  std::atomic<int> level{static_cast<int>(level_from_environment())};
};

Sink& sink() noexcept;

void before_fork() { sink().mutex.lock(); }
void after_fork_in_parent() { sink().mutex.unlock(); }
void after_fork_in_child() {
  Sink& child = sink();
  // What waits is the parent's to hand over. A thread that was in the handler is not here, and what
  // it held there is held for ever.
  child.waiting.clear();
  if (child.busy && !in_turn) {
    child.busy = false;
    // Not destroyed either: that might wait for the same.
    (void)new std::shared_ptr<LogHandler>(std::move(child.handler));
  }
  child.mutex.unlock();
}

// Never destroyed: background threads may log while the process exits.
Sink& sink() noexcept {
  alignas(Sink) static std::byte memory[sizeof(Sink)];
  static Sink& instance = *new (memory) Sink;
  // Refused for want of memory only. Then a child may wait for ever, if it logs, and was forked in
  // just the moment in which a line was handed over.
  static const int refused =
      ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  (void)refused;
  return instance;
}

void write_to_stderr(LogLevel level, std::string_view line) {
  const std::string text =
      fmt::format("ckptring {} {}\n", kLevelNames[static_cast<int>(level)], line);
  // stderr may be gone or full; a log line is not worth failing for.
  (void)std::fwrite(text.data(), 1, text.size(), stderr);
}

/// Logging must never bring the trainer down, whatever a handler throws.
void hand_over(const LogHandler* handler, LogLevel level, std::string_view line) noexcept {
  try {
    if (handler != nullptr) {
      (*handler)(level, line);
    } else {
      write_to_stderr(level, line);
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): as said
  }
}

/// Whose it is to see to a line.
struct Charge {
  bool others = false;                  ///< the thread's that has the turn
  std::shared_ptr<LogHandler> handler;  ///< this thread's, whose turn begins; null: stderr's
};

Charge charge_with(Sink& to, LogLevel level, std::string_view line) {
  const std::scoped_lock lock(to.mutex);
  if (!to.handler || in_turn) return {};
  if (!std::exchange(to.busy, true)) return {false, to.handler};
  if (to.waiting.size() >= kMostWaiting) return {};
  to.waiting.push_back({level, std::string(line)});
  return {true, nullptr};
}

/// A call has ended. @return the next line of this thread's turn; nothing: the turn is over
std::optional<Line> next_in_turn(Sink& to, std::shared_ptr<LogHandler>& handler) noexcept {
  // Outside of the lock: if it was replaced meanwhile, its captures may end here.
  handler.reset();
  const std::scoped_lock lock(to.mutex);
  to.ended.fetch_add(1, std::memory_order_release);  // ENDED
  to.ended.notify_all();
  if (to.waiting.empty()) {
    to.busy = false;
    return std::nullopt;
  }
  std::optional<Line> next(std::move(to.waiting.front()));
  to.waiting.pop_front();
  handler = to.handler;
  return next;
}

}  // namespace

void set_log_handler(LogHandler handler) {
  auto next = handler ? std::make_shared<LogHandler>(std::move(handler)) : nullptr;
  Sink& to = sink();
  std::uint32_t ended = 0;
  {
    const std::scoped_lock lock(to.mutex);
    next.swap(to.handler);
    if (!to.busy || in_turn) return;
    ended = to.ended.load(std::memory_order_relaxed);  // changed under this mutex only
  }
  // The one before may be running yet, and its captures be about to end.
  to.ended.wait(ended, std::memory_order_acquire);  // ENDED
}

// LEVEL edge: none. The level is a hint; a line more or less around the change is harmless.
void set_log_level(LogLevel level) {
  sink().level.store(static_cast<int>(level), std::memory_order_relaxed);
}

LogLevel log_level() noexcept {
  return static_cast<LogLevel>(sink().level.load(std::memory_order_relaxed));
}

namespace base {

bool in_log_handler() noexcept { return in_turn; }

std::unique_lock<std::mutex> lock_unless_handler_waits(std::mutex& mutex, const char* operation) {
  std::unique_lock lock(mutex, std::try_to_lock);
  if (lock) return lock;
  refuse_to_wait_in_log_handler(operation);
  lock.lock();
  return lock;
}

void refuse_to_wait_in_log_handler(const char* operation) {
  if (!in_log_handler()) return;
  throw Error(ErrorCode::invalid_argument, operation, "",
              "it would have to wait, in the log handler, for what may wait for the handler");
}

void write_log_line(LogLevel level, std::string_view line) noexcept {
  if (level > log_level() || level == LogLevel::off) return;
  try {
    Charge charge = charge_with(sink(), level, line);
    if (charge.others) return;
    if (!charge.handler) return hand_over(nullptr, level, line);
    in_turn = true;
    hand_over(charge.handler.get(), level, line);
    while (const std::optional<Line> next = next_in_turn(sink(), charge.handler)) {
      hand_over(charge.handler.get(), next->level, next->text);
    }
    in_turn = false;
  } catch (...) {  // NOLINT(bugprone-empty-catch): no memory for the line
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
