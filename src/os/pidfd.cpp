#include "os/pidfd.h"

#include "base/system_words.h"
#include "os/new_fd.h"
#include "os/poll.h"
#include "os/read_file.h"

#include <ckptring/error.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <optional>
#include <string>

namespace ckptring::os {
namespace {
constexpr auto kWaitByPidfd = static_cast<idtype_t>(3);  // P_PIDFD, absent from older headers
}

UniqueFd open_pidfd(pid_t pid) {
  UniqueFd fd = new_fd([&] { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); });
  if (!fd) throw Error::from_errno(errno, "open a pidfd of process " + std::to_string(pid), "");
  return fd;
}

bool has_ended(int pidfd) { return is_ready(pidfd); }

bool send_signal(int pidfd, int signal) noexcept {
  return ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
}

ExitStatus reap(int pidfd) noexcept {
  siginfo_t info{};
  int result = 0;
  do {
    result = ::waitid(kWaitByPidfd, static_cast<id_t>(pidfd), &info, WEXITED | WNOHANG);
  } while (result != 0 && errno == EINTR);
  if (result != 0 || info.si_pid == 0) return {};
  if (info.si_code == CLD_EXITED) return {ExitStatus::Kind::exited, info.si_status};
  return {ExitStatus::Kind::signalled, info.si_status};
}

std::string ExitStatus::in_words() const {
  switch (kind) {
    case Kind::exited:
      return "exited with status " + std::to_string(value);
    case Kind::signalled:
      return "was terminated by signal " + std::to_string(value) + " (" +
             base::words_of_signal(value) + ")";
    case Kind::unknown:
      break;
  }
  return "ended, and its exit status was taken by another part of the program";
}

char process_state(pid_t pid) {
  const std::optional<std::string> line = read_file("/proc/" + std::to_string(pid) + "/stat");
  if (!line) return 0;
  // The name in parentheses may itself contain anything; the state follows the last ')'.
  const auto close = line->rfind(')');
  if (close == std::string::npos || close + 2 >= line->size()) return 0;
  return (*line)[close + 2];
}

}  // namespace ckptring::os
