// Tests that need a file system of their own.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>

namespace ckptring::test {

/// Thrown by a test's body: this host does not allow what it needs.
class Refused : public std::runtime_error {
 public:
  explicit Refused(const std::string& what) : std::runtime_error("this host refuses " + what) {}
  Refused(const std::string& what, int errno_value)
      : Refused(what + ": " + std::generic_category().message(errno_value)) {}
};

struct InOwnMounts {
  std::string failure;  ///< empty: success
  std::string refused;  ///< why this host cannot run it; empty: it ran
};

/// Runs `body` in a child with its own mounts, where it may mount, and as whoever it wants to be.
/// What it returns as text is a failure; empty is success.
inline InOwnMounts in_own_mounts(const std::function<std::string()>& body) {
  int channel[2];
  if (::pipe(channel) != 0) throw std::runtime_error("pipe");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  constexpr char kRan = '+';
  constexpr char kRefused = '-';
  if (child == 0) {
    ::close(channel[0]);
    std::string text;
    try {
      const int flags = CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER);
      if (::unshare(flags) != 0 ||
          ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        throw Refused("mounts of one's own", errno);
      }
      text = kRan + body();
    } catch (const Refused& refused) {
      text = kRefused + std::string(refused.what());
    } catch (const std::exception& error) {
      text = kRan + std::string("unexpected: ") + error.what();
    }
    const ssize_t written = ::write(channel[1], text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(channel[1]);
  std::string text;
  char buffer[512];
  for (ssize_t got = 0; (got = ::read(channel[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(channel[0]);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid");
  if (status != 0 || text.empty()) {
    return {text + " (child ended with status " + std::to_string(status) + ")", ""};
  }
  const std::string rest = text.substr(1);
  return text.front() == kRefused ? InOwnMounts{"", rest} : InOwnMounts{rest, ""};
}

/// A tmpfs there. @param options as of mount(8)
inline void mount_tmpfs(const std::string& directory, const std::string& options,
                        unsigned long flags = 0) {
  if (::mount("ckptring-test", directory.c_str(), "tmpfs", flags, options.c_str()) != 0) {
    throw Refused("a tmpfs", errno);
  }
}

}  // namespace ckptring::test
