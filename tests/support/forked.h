// What is tried in a forked child, because it cannot be undone, or may end the process.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace ckptring::test {

/// Whether a child may allocate that was forked while another thread did. A sanitizer's allocator
/// takes no notice of forks: its locks may be held in the child for ever.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kForksWhileOthersAllocate = false;
#else
inline constexpr bool kForksWhileOthersAllocate = true;
#endif
/// Why what needs it is skipped.
inline constexpr const char* kNoForksWhileOthersAllocate =
    "a sanitizer's allocator does not follow forks while other threads allocate";

/// The exit status of a forked child that ends with what `body` returns; -1 if a signal ends it.
/// The child's other threads do not exist, and nothing is destroyed at its end.
template <class Body>
[[nodiscard]] int exit_status_of_fork(Body&& body) {
  const pid_t child = ::fork();
  if (child < 0) return -2;
  if (child == 0) ::_exit(std::forward<Body>(body)());
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return -3;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace ckptring::test
