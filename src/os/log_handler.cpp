#include "os/log_handler.h"

#include "base/log.h"
#include "os/own_thread.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace ckptring {
namespace {

/// More than a burst; what a handler that hangs may cost.
constexpr std::size_t kMostWaiting = 4096;
/// How often wait_for_log_handler looks.
constexpr std::chrono::milliseconds kLook{1};

using Handler = std::shared_ptr<const LogHandler>;

struct Line {
  LogLevel level;
  std::string text;
  Handler handler;  ///< the one that was there when it was logged; null: stderr
};

enum class Thread {
  none,     ///< the next line has it made
  there,    ///< or about to be
  refused,  ///< what waits for it is being printed
};

/// Nobody's code but this file's runs while `mutex` is held.
struct HandOver {
  std::mutex mutex;
  // Guarded by mutex.
  Handler handler;          ///< null: stderr
  std::list<Line> waiting;  ///< empty it takes no memory
  Thread thread = Thread::none;
  bool in_handler = false;  ///< that thread is
};

/// Of lines that were left to the thread: changed with the mutex held. They may go round.
/// LEFT edge: none, the mutex hands over the lines. The thread waits for a change.
constinit std::atomic<std::uint32_t> left{0};
/// ENDED edge: stored, with release, when a line has been handled and its handler let go; loaded
/// with acquire by whoever waits for that: what the handler did has been done.
constinit std::atomic<std::uint32_t> ended{0};

/// Whether this thread is the one that calls the handler.
thread_local bool hands_over = false;

HandOver& hand_over() noexcept;

void before_fork() { hand_over().mutex.lock(); }
void after_fork_in_parent() { hand_over().mutex.unlock(); }
void after_fork_in_child() {
  HandOver& child = hand_over();
  // What waits is the parent's to hand over. Nobody waits for it here.
  child.waiting.clear();
  ended.store(left.load(std::memory_order_relaxed), std::memory_order_relaxed);  // one thread
  child.thread = Thread::none;
  if (std::exchange(child.in_handler, false) && !hands_over) {
    // The thread that was in the handler is not here, and what it held there is held for ever. The
    // handler is not destroyed either: that might wait for the same.
    (void)new Handler(std::move(child.handler));
  }
  child.mutex.unlock();
}

// Never destroyed: background threads may log while the process exits.
HandOver& hand_over() noexcept {
  alignas(HandOver) static std::byte memory[sizeof(HandOver)];
  static HandOver& instance = *new (memory) HandOver;
  // Refused for want of memory only. Then a child may wait for ever, if it logs, and was forked in
  // just the moment in which a line was left to the thread.
  static const int refused =
      ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  (void)refused;
  return instance;
}

/// With the mutex held.
Line take_first(HandOver& from) noexcept {
  Line first = std::move(from.waiting.front());
  from.waiting.pop_front();
  return first;
}

void count_as_ended() noexcept {
  ended.fetch_add(1, std::memory_order_release);  // ENDED
  ended.notify_all();
}

void handle(const Line& line) noexcept {
  if (!line.handler) return base::print_log_line(line.level, line.text);
  // The program shall not end for a log line, whatever is thrown.
  try {
    (*line.handler)(line.level, line.text);
  } catch (...) {  // NOLINT(bugprone-empty-catch): as said
  }
}

/// What the thread does.
void hand_over_for_ever() noexcept {
  os::lend_this_thread();
  hands_over = true;
  const pid_t process = ::getpid();
  HandOver& from = hand_over();
  for (;;) {
    const std::uint32_t seen = left.load(std::memory_order_relaxed);  // LEFT
    std::optional<Line> line;
    {
      const std::scoped_lock lock(from.mutex);
      if (!from.waiting.empty()) {
        line = take_first(from);
        from.in_handler = true;
      }
    }
    if (!line) {
      left.wait(seen, std::memory_order_relaxed);  // LEFT
      continue;
    }
    handle(*line);
    // A child that the handler has forked, and in which it returns: there is nothing to return to.
    if (::getpid() != process) ::_exit(0);
    {
      const std::scoped_lock lock(from.mutex);
      from.in_handler = false;
    }
    // Outside of the lock: if it was replaced meanwhile, its captures may end here.
    line.reset();
    count_as_ended();
  }
}

/// As no thread can be made: what waits for one goes to stderr.
void print_what_waits(HandOver& from) noexcept {
  for (;;) {
    std::optional<Line> line;
    {
      const std::scoped_lock lock(from.mutex);
      from.thread = from.waiting.empty() ? Thread::none : Thread::refused;
      if (from.waiting.empty()) return;
      line = take_first(from);
    }
    base::print_log_line(line->level, line->text);
    line.reset();
    count_as_ended();
  }
}

/// @return false: the line is not the thread's
bool leave_to_thread(LogLevel level, std::string_view text) {
  HandOver& to = hand_over();
  bool make = false;
  {
    const std::scoped_lock lock(to.mutex);
    // What the handler's own doing has to say would never end.
    if (!to.handler || hands_over) return false;
    if (to.thread == Thread::refused || to.waiting.size() >= kMostWaiting) return false;
    to.waiting.push_back({level, std::string(text), to.handler});
    left.fetch_add(1, std::memory_order_relaxed);  // LEFT
    make = std::exchange(to.thread, Thread::there) == Thread::none;
  }
  left.notify_all();
  if (!make) return true;
  // Not with the mutex held: a fork may wait for it and hold what is needed to make a thread.
  try {
    os::OwnThread("ckptring-log", os::OwnThread::Priority::background, hand_over_for_ever).detach();
  } catch (...) {  // the system allows no more threads, or there is no memory
    print_what_waits(to);
  }
  return true;
}

/// Of counts that go round.
bool is_before(std::uint32_t count, std::uint32_t other) noexcept {
  return static_cast<std::int32_t>(count - other) < 0;
}

}  // namespace

void set_log_handler(LogHandler handler) {
  Handler next = handler ? std::make_shared<const LogHandler>(std::move(handler)) : nullptr;
  HandOver& of = hand_over();
  std::uint32_t lines = 0;
  {
    const std::scoped_lock lock(of.mutex);
    next.swap(of.handler);
    lines = left.load(std::memory_order_relaxed);  // changed under this mutex only
    if (hands_over) {
      // It cannot wait for itself, and yet is not to be called any more.
      for (Line& line : of.waiting) line.handler = of.handler;
    }
  }
  base::set_log_sink(leave_to_thread);
  if (hands_over) return;
  // The one before may be running yet, and its captures be about to end.
  for (;;) {
    const std::uint32_t now = ended.load(std::memory_order_acquire);  // ENDED
    if (!is_before(now, lines)) return;
    ended.wait(now, std::memory_order_acquire);  // ENDED
  }
}

void os::prepare_log_for_forks() noexcept { (void)hand_over(); }

void os::wait_for_log_handler(std::chrono::milliseconds limit) noexcept {
  if (hands_over) return;
  // At least those lines that this thread has left, or has heard of.
  const std::uint32_t lines = left.load(std::memory_order_relaxed);  // LEFT
  const auto enough = std::chrono::steady_clock::now() + limit;
  while (is_before(ended.load(std::memory_order_acquire), lines)) {  // ENDED
    if (std::chrono::steady_clock::now() >= enough) return;
    std::this_thread::sleep_for(kLook);
  }
}

}  // namespace ckptring
