#include "os/spawn.h"

#include "os/new_fd.h"
#include "os/signals_blocked.h"

#include <ckptring/error.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

// The C library's clone under the name that no sanitizer intercepts: its bookkeeping for a fork
// would happen in the parent's memory.
// NOLINTNEXTLINE(bugprone-reserved-identifier)
extern "C" int __clone(int (*main)(void*), void* stack, int flags, void* argument, ...);

namespace ckptring::os {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;
constexpr int kSignals = 64;
constexpr int kMostDescriptors = 65536;  ///< where the system does not say

/// What the child needs, all of it prepared by the parent: the child shares the parent's memory
/// and may neither allocate nor take a lock.
struct ChildPlan {
  const char* executable;
  int program;  ///< a descriptor; -1: none
  char* const* arguments;
  char* const* environment;
  const int* descriptors;
  int* moved;  ///< scratch, as many as descriptors
  int descriptor_count;
  int descriptor_limit;  ///< no descriptor is as high as this
  int failed_with;       ///< out: errno
  bool one_by_one;       ///< out: there is no close_range
};

/// All zeros is the kernel's form of "default action, no flags, empty mask", and of an empty mask.
constexpr std::array<unsigned long, 4> kZeros{};
constexpr std::size_t kKernelMaskBytes = 8;

int number_in(const char* text) noexcept {
  int number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) number = 10 * number + (*text - '0');
  return *text == '\0' ? number : -1;
}

/// Closes all descriptors from `first` on: those that /proc names, which are few; the limit may be
/// a billion. Where there is no /proc, all that there may be. As `child_main`.
__attribute__((no_sanitize("thread", "address"))) void close_one_by_one(int first, int limit) {
  const auto folder = static_cast<int>(
      ::syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder < 0) {
    for (int fd = first; fd < limit; ++fd) (void)::syscall(SYS_close, fd);
    return;
  }
  alignas(::dirent64) std::array<char, 4096> entries;  // NOLINT(*-member-init): read into
  for (;;) {
    const long got = ::syscall(SYS_getdents64, folder, entries.data(), entries.size());
    if (got <= 0) break;
    for (long at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const ::dirent64*>(entries.data() + at);
      const int fd = number_in(entry->d_name);
      if (fd >= first && fd != folder) (void)::syscall(SYS_close, fd);
      at += entry->d_reclen;
    }
  }
  (void)::syscall(SYS_close, folder);
}

/// Runs in the child on its own stack until exec. System calls only, and made directly: the C
/// library's functions may be intercepted by tools (sanitizers) that keep their books in this
/// memory, which is the parent's.
__attribute__((no_sanitize("thread", "address"))) int child_main(void* argument) {
  auto& plan = *static_cast<ChildPlan*>(argument);

  // Handlers of the parent must not run here once signals are unblocked.
  for (int signal = 1; signal <= kSignals; ++signal) {
    // KILL and STOP are refused; they need no reset.
    (void)::syscall(SYS_rt_sigaction, signal, kZeros.data(), nullptr, kKernelMaskBytes);
  }
  bool prepared = ::syscall(SYS_setsid) >= 0;

  // First above all targets, so that no source is overwritten before it was used.
  const int count = plan.descriptor_count;
  for (int i = 0; prepared && i < count; ++i) {
    plan.moved[i] = static_cast<int>(::syscall(SYS_fcntl, plan.descriptors[i], F_DUPFD, count));
    prepared = plan.moved[i] >= 0;
  }
  int program = plan.program;
  if (prepared && program >= 0) {
    program = static_cast<int>(::syscall(SYS_fcntl, program, F_DUPFD_CLOEXEC, count));
    prepared = program >= 0;
  }
  for (int i = 0; prepared && i < count; ++i) {
    prepared = ::syscall(SYS_dup3, plan.moved[i], i, 0) >= 0;
  }
  int end = count;
  if (prepared && program >= 0) {  // behind the targets, until the exec closes it
    prepared = program == count || ::syscall(SYS_dup3, program, count, O_CLOEXEC) >= 0;
    program = count;
    ++end;
  }
  if (prepared && ::syscall(SYS_close_range, static_cast<unsigned>(end), ~0u, 0u) != 0) {
    plan.one_by_one = true;  // before Linux 5.9
    close_one_by_one(end, plan.descriptor_limit);
  }

  prepared = prepared && ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, kZeros.data(), nullptr,
                                   kKernelMaskBytes) == 0;
  if (prepared && program >= 0) {
    (void)::syscall(SYS_execveat, program, "", plan.arguments, plan.environment, AT_EMPTY_PATH);
    // A sandbox may know the older call only.
    prepared = errno == ENOSYS || errno == EPERM;
  }
  if (prepared) {
    (void)::syscall(SYS_execve, plan.executable, plan.arguments, plan.environment);
  }
  plan.failed_with = errno;
  ::syscall(SYS_exit_group, 127);
  __builtin_unreachable();
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

/// Waits for a child that has ended, or is about to.
void collect(pid_t pid) noexcept {
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED) != 0 && errno == EINTR) {
  }
}

}  // namespace

Spawned spawn(const SpawnRequest& request) {
  const std::vector<char*> arguments = pointers_to(request.arguments);
  const std::vector<char*> environment = pointers_to(request.environment);
  std::vector<int> moved(request.descriptors.size(), -1);
  const long limit = ::sysconf(_SC_OPEN_MAX);
  ChildPlan plan{request.executable.c_str(),
                 request.program,
                 arguments.data(),
                 environment.data(),
                 request.descriptors.data(),
                 moved.data(),
                 static_cast<int>(request.descriptors.size()),
                 limit < 0 ? kMostDescriptors : static_cast<int>(std::min(limit, long{INT_MAX})),
                 0,
                 false};
  const Stack stack;
  int pidfd = -1;
  HiddenSlot hidden(pidfd);
  pid_t pid = -1;
  int clone_errno = 0;
  {
    const SignalsBlocked blocked;  // none reaches the child early
    const StandardNumbersTaken taken;
    pid = ::__clone(child_main, stack.top(), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan,
                    &pidfd);
    clone_errno = errno;
  }
  if (pid < 0) {
    pidfd = -1;  // whatever was written there
    throw Error::from_errno(clone_errno, "start", request.executable);
  }
  if (plan.failed_with != 0) {
    collect(pid);  // it has ended already
    throw Error::from_errno(plan.failed_with, "start", request.executable);
  }
  try {
    return {pid, hidden.take(), plan.one_by_one};
  } catch (...) {  // out of memory, as a rule; nobody could watch it
    (void)::kill(pid, SIGKILL);
    collect(pid);
    throw;
  }
}

}  // namespace ckptring::os
