#include "os/spawn.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <climits>
#include <csignal>

namespace ckptring::os {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr int kSignals = 64;

/// What the child needs, all of it prepared by the parent: the child shares the parent's memory
/// and may neither allocate nor take a lock.
struct ChildPlan {
  const char* executable;
  char* const* arguments;
  char* const* environment;
  const int* descriptors;
  int* moved;  ///< scratch, as many as descriptors
  int descriptor_count;
  int failed_with;  ///< out: errno
};

/// Runs in the child on its own stack until exec. System calls only.
__attribute__((no_sanitize("thread", "address"))) int child_main(void* argument) {
  auto& plan = *static_cast<ChildPlan*>(argument);
  const auto give_up = [&plan] {
    plan.failed_with = errno;
    ::_exit(127);
  };

  // Handlers of the parent must not run here once signals are unblocked.
  struct sigaction default_action {};
  default_action.sa_handler = SIG_DFL;
  for (int signal = 1; signal <= kSignals; ++signal) {
    // KILL, STOP and the C library's own two are refused; they need no reset.
    (void)::sigaction(signal, &default_action, nullptr);
  }
  if (::setsid() < 0) give_up();

  // First above all targets, so that no source is overwritten before it was used.
  const int count = plan.descriptor_count;
  for (int i = 0; i < count; ++i) {
    plan.moved[i] = ::fcntl(plan.descriptors[i], F_DUPFD, count);
    if (plan.moved[i] < 0) give_up();
  }
  for (int i = 0; i < count; ++i) {
    if (::dup2(plan.moved[i], i) < 0) give_up();
  }
  if (::syscall(SYS_close_range, static_cast<unsigned>(count), ~0u, 0u) != 0) {
    // Before Linux 5.9: one by one, up to the limit.
    const long limit = ::sysconf(_SC_OPEN_MAX);
    for (int fd = count; fd < static_cast<int>(limit < 0 ? 65536 : limit); ++fd) (void)::close(fd);
  }

  sigset_t none;
  (void)::sigemptyset(&none);
  if (::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) give_up();
  (void)::execve(plan.executable, plan.arguments, plan.environment);
  give_up();
  return 127;
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

class Stack {
 public:
  Stack()
      : base_(::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {
    if (base_ == MAP_FAILED) throw Error::from_errno(errno, "map a stack for a new process", "");
  }
  ~Stack() { (void)::munmap(base_, kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  [[nodiscard]] void* top() const noexcept { return static_cast<char*>(base_) + kStackBytes; }

 private:
  void* base_;
};

/// Blocks every signal in this thread while it exists, so that none reaches the child early.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    (void)::sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

Spawned spawn(const SpawnRequest& request) {
  const std::vector<char*> arguments = pointers_to(request.arguments);
  const std::vector<char*> environment = pointers_to(request.environment);
  std::vector<int> moved(request.descriptors.size(), -1);
  ChildPlan plan{request.executable.c_str(),
                 arguments.data(),
                 environment.data(),
                 request.descriptors.data(),
                 moved.data(),
                 static_cast<int>(request.descriptors.size()),
                 0};
  const Stack stack;
  int pidfd = -1;
  pid_t pid = -1;
  int clone_errno = 0;
  {
    const SignalsBlocked blocked;
    pid = ::clone(child_main, stack.top(), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan,
                  &pidfd);
    clone_errno = errno;
  }
  if (pid < 0) throw Error::from_errno(clone_errno, "start", request.executable);
  UniqueFd owned(pidfd);
  if (plan.failed_with != 0) {
    // It has ended already; collect it.
    siginfo_t info{};
    while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED) != 0 && errno == EINTR) {
    }
    throw Error::from_errno(plan.failed_with, "start", request.executable);
  }
  return {pid, std::move(owned)};
}

}  // namespace ckptring::os
