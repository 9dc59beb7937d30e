// What a kernel does that lacks a system call, or is told to refuse it.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace ckptring::test {

[[nodiscard]] inline bool install(std::vector<::sock_filter> program) {
  const ::sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// From now on the calling thread, and what it starts, get `error` from this system call; given a
/// `third` argument (below 2^32), only from calls with that one. For good.
[[nodiscard]] inline bool forbid_call(long call, int error, std::optional<unsigned> third = {}) {
  std::vector<::sock_filter> program;
  const auto skip_unless = [&](std::size_t offset, unsigned value, unsigned char steps) {
    program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset)));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, steps));
  };
  skip_unless(offsetof(::seccomp_data, nr), static_cast<unsigned>(call), third ? 3 : 1);
  // The low half of the argument: these machines are little-endian.
  if (third) skip_unless(offsetof(::seccomp_data, args) + 2 * sizeof(std::uint64_t), *third, 1);
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return install(program);
}

/// From now on the calling thread, and what it starts, get `error` where they would make a thread.
/// Processes can still be made. For good.
[[nodiscard]] inline bool forbid_new_threads(int error) {
  // The C library then takes clone, whose flags can be looked at.
  if (!forbid_call(SYS_clone3, ENOSYS)) return false;
  constexpr auto kFlags = static_cast<unsigned>(offsetof(::seccomp_data, args));
  const std::vector<::sock_filter> program{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offsetof(::seccomp_data, nr))),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(SYS_clone), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlags),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, static_cast<unsigned>(CLONE_THREAD), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  return install(program);
}

/// Without close_range a new process closes descriptors one by one, up to this process's limit,
/// which may be a billion in a container. For good.
[[nodiscard]] inline bool limit_descriptors(::rlim_t most = 4096) {
  ::rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  limit.rlim_cur = std::min(limit.rlim_cur, most);
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

}  // namespace ckptring::test
