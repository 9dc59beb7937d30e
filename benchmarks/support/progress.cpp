#include "support/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <system_error>

namespace bench {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler sets it

bool on_terminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace

void watch_interrupts() {
  for (const int signal : {SIGINT, SIGTERM}) {
    if (std::signal(signal, [](int) { interrupted = true; }) == SIG_ERR) {
      throw std::system_error(errno, std::generic_category(), "watch signals");
    }
  }
}

void check_interrupts() {
  if (interrupted) throw std::runtime_error("interrupted");
}

void progress(const std::string& what) {
  check_interrupts();
  if (on_terminal()) {
    // Not wrapped: of a line that is too long only the last row would be replaced.
    fmt::print(stderr, "\r\033[K\033[?7l{}\033[?7h", what);
  } else {
    fmt::print(stderr, "{}\n", what);
  }
}

void end_progress() {
  if (on_terminal()) fmt::print(stderr, "\r\033[K");
}

}  // namespace bench
