#include "support/peer.h"

#include "support/stopwatch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

namespace bench {
namespace {

constexpr auto kLook = std::chrono::milliseconds(5);
constexpr double kEndSecs = 15;
/// For the death of somebody whose end of the channel is closed already.
constexpr int kDeathMs = 1000;

[[noreturn]] void fail_here(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

/// What posix_spawn is told, released at the end.
class SpawnOptions {
 public:
  SpawnOptions() {
    check(::posix_spawn_file_actions_init(&actions), "prepare a start");
    if (const int error = ::posix_spawnattr_init(&attributes)) {
      (void)::posix_spawn_file_actions_destroy(&actions);
      fail_here(error, "prepare a start");
    }
  }
  ~SpawnOptions() {
    (void)::posix_spawnattr_destroy(&attributes);
    (void)::posix_spawn_file_actions_destroy(&actions);
  }
  SpawnOptions(const SpawnOptions&) = delete;
  SpawnOptions& operator=(const SpawnOptions&) = delete;

  static void check(int error, const char* what) {
    if (error != 0) fail_here(error, what);
  }

  ::posix_spawn_file_actions_t actions{};
  ::posix_spawnattr_t attributes{};
};

void close_all(std::initializer_list<int> descriptors) {
  for (const int descriptor : descriptors) {
    if (descriptor >= 0) (void)::close(descriptor);
  }
}

/// The last line of a memory file that is not empty.
std::string last_line(int memory) {
  struct ::stat status {};
  if (::fstat(memory, &status) != 0) return "";
  std::array<char, 2000> buffer{};
  const auto size = static_cast<::off_t>(buffer.size());
  const ::ssize_t got =
      ::pread(memory, buffer.data(), buffer.size(), std::max<::off_t>(0, status.st_size - size));
  if (got <= 0) return "";
  std::string text(buffer.data(), static_cast<std::size_t>(got));
  text.erase(text.find_last_not_of(" \n") + 1);
  return text.substr(text.find_last_of('\n') + 1);
}

}  // namespace

Peer::Peer(std::vector<std::string> arguments) : name_(arguments.at(0)) {
  std::array<int, 2> ends{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail_here(errno, "make a channel to " + name_);
  }
  channel_ = ends[0];
  try {
    errors_ = ::memfd_create("bench-peer-stderr", MFD_CLOEXEC);
    if (errors_ < 0) fail_here(errno, "make a file for what " + name_ + " prints");
    SpawnOptions options;
    for (const auto& [from, to] :
         {std::pair{ends[1], STDIN_FILENO}, {ends[1], STDOUT_FILENO}, {errors_, STDERR_FILENO}}) {
      SpawnOptions::check(::posix_spawn_file_actions_adddup2(&options.actions, from, to),
                          "prepare a start");
    }
    SpawnOptions::check(::posix_spawnattr_setflags(&options.attributes, POSIX_SPAWN_SETSID),
                        "prepare a start");
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    if (const int error = ::posix_spawnp(&process_, argv[0], &options.actions, &options.attributes,
                                         argv.data(), ::environ)) {
      throw PeerError("cannot start " + name_ + ": " + std::generic_category().message(error));
    }
    pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, process_, 0));
    if (pidfd_ < 0) {
      const int error = errno;
      (void)::kill(process_, SIGKILL);
      (void)::waitpid(process_, nullptr, 0);
      fail_here(error, "watch " + name_);
    }
  } catch (...) {
    close_all({ends[0], ends[1], errors_});
    throw;
  }
  close_all({ends[1]});
}

Peer::~Peer() {
  (void)::shutdown(channel_, SHUT_WR);
  try {
    // All of the session: some start processes that clean up behind the others.
    const Stopwatch watch;
    while (watch.seconds() < kEndSecs && !session_of(process_).empty()) {
      std::this_thread::sleep_for(kLook);
    }
    for (const ::pid_t one : session_of(process_)) (void)::kill(one, SIGKILL);
  } catch (const std::exception&) {
    (void)::kill(process_, SIGKILL);  // all that can be done without /proc
  }
  // Not before: as long as it was not waited for, nobody else gets its number.
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
  close_all({pidfd_, channel_, errors_});
}

void Peer::fail(const std::string& what) const {
  const std::string said = last_line(errors_);
  throw PeerError(said.empty() ? what : fmt::format("{} ({})", what, said));
}

void Peer::fail_at_end() const {
  ::pollfd ended{pidfd_, POLLIN, 0};
  if (::poll(&ended, 1, kDeathMs) != 1) fail("closed its end");
  ::siginfo_t info{};
  // Left to be waited for, so that nobody else gets its number.
  if (::waitid(P_PIDFD, static_cast<::id_t>(pidfd_), &info, WEXITED | WNOWAIT) != 0) {
    fail_here(errno, "ask how " + name_ + " ended");
  }
  fail(fmt::format("ended by {} {}", info.si_code == CLD_EXITED ? "exit code" : "signal",
                   info.si_status));
}

void Peer::wait_until_ready(short events, double timeout_secs,
                            const std::function<void()>& meanwhile) const {
  const Stopwatch watch;
  for (;;) {
    std::array<::pollfd, 2> waited{{{channel_, events, 0}, {pidfd_, POLLIN, 0}}};
    const int ready = ::poll(waited.data(), waited.size(), static_cast<int>(kLook.count()));
    if (ready < 0 && errno != EINTR) fail_here(errno, "wait for " + name_);
    if (ready > 0 && waited[0].revents != 0) return;
    if (ready > 0) fail_at_end();
    if (watch.seconds() > timeout_secs) fail(fmt::format("silent for {:.0f} s", timeout_secs));
    meanwhile();
  }
}

nlohmann::json Peer::ask(const nlohmann::json& command, double timeout_secs,
                         const std::function<void()>& meanwhile) {
  const std::string line = command.dump() + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    wait_until_ready(POLLOUT, timeout_secs, meanwhile);
    const ::ssize_t now =
        ::send(channel_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (now > 0) sent += static_cast<std::size_t>(now);
    if (now < 0 && (errno == EPIPE || errno == ECONNRESET)) fail_at_end();
    if (now < 0 && errno != EAGAIN && errno != EINTR) {
      fail("takes no command: " + std::generic_category().message(errno));
    }
  }
  std::size_t end = 0;
  while ((end = unread_.find('\n')) == std::string::npos) {
    wait_until_ready(POLLIN, timeout_secs, meanwhile);
    std::array<char, 4096> buffer{};
    const ::ssize_t got = ::recv(channel_, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) unread_.append(buffer.data(), static_cast<std::size_t>(got));
    if (got == 0 || (got < 0 && errno == ECONNRESET)) fail_at_end();
    if (got < 0 && errno != EAGAIN && errno != EINTR) {
      fail("gives no answer: " + std::generic_category().message(errno));
    }
  }
  const std::string answer_line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  nlohmann::json answer = nlohmann::json::parse(answer_line, nullptr, false);
  if (!answer.is_object()) fail("answered '" + answer_line.substr(0, 200) + "'");
  if (answer.contains("error")) throw PeerError(answer.at("error").dump());
  return answer;
}

ProcessMemory Peer::memory() const {
  ProcessMemory sum;
  for (const ::pid_t one : family_of(process_)) {
    try {
      const ProcessMemory memory = memory_of(one);
      sum.pss += memory.pss;
      sum.page_tables += memory.page_tables;
    } catch (const std::runtime_error&) {
      continue;  // ended meanwhile
    }
  }
  return sum;
}

FamilyCpu Peer::cpu() const {
  FamilyCpu sum;
  for (const ::pid_t one : family_of(process_)) {
    try {
      (one == process_ ? sum.leader : sum.others) += cpu_seconds_of(one);
    } catch (const std::runtime_error&) {
      continue;  // ended meanwhile
    }
  }
  return sum;
}

}  // namespace bench
