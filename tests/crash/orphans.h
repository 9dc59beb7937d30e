// What becomes of processes whose parent has died.
#pragma once

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

namespace ckptring::test {

constexpr std::chrono::seconds kStuck{60};

/// Orphans of this process's descendants become its own children, so that their end can be seen.
inline void adopt_orphans() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) throw std::runtime_error("become subreaper");
}

/// @return the wait status, 0 if its parent had waited for it before; nothing if it has not ended
///         in time
inline std::optional<int> wait_for_end(pid_t process, std::chrono::milliseconds limit = kStuck) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    int status = 0;
    const pid_t got = ::waitpid(process, &status, WNOHANG);
    if (got == process) return status;
    if (got < 0 && errno == ECHILD) return 0;
    if (got < 0 && errno != EINTR) throw std::runtime_error("wait for " + std::to_string(process));
    if (std::chrono::steady_clock::now() > deadline) return std::nullopt;
    ::usleep(500);
  }
}

}  // namespace ckptring::test
