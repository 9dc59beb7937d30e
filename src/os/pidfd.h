// Processes by descriptor: no race with a reused process id.
#pragma once

#include "os/clock.h"
#include "os/unique_fd.h"

#include <sys/types.h>

#include <string>

namespace ckptring::os {

/// @throws Error
UniqueFd open_pidfd(pid_t pid);

/// Whether the process has ended (all of its threads).
bool has_ended(int pidfd);

/// Sends a signal; false if the process is gone.
bool send_signal(int pidfd, int signal) noexcept;

/// How a child ended.
struct ExitStatus {
  enum class Kind { exited, signalled, unknown };
  Kind kind = Kind::unknown;  ///< unknown: somebody else reaped it
  int value = 0;              ///< exit status or signal number

  /// "exited with status 3", "was terminated by signal 9 (Killed)", ...
  [[nodiscard]] std::string in_words() const;
};

/// Reaps an ended child.
ExitStatus reap(int pidfd) noexcept;

/// The scheduler's letter for a process as in /proc/PID/stat: R, S, D (uninterruptible), T
/// (stopped), t (traced), Z ...; 0 if it cannot be read.
char process_state(pid_t pid);

}  // namespace ckptring::os
