// Keeping signals that are meant for the program from a thread, or a process, of this library.
#pragma once

#include <csignal>

namespace ckptring::os {

/// While one exists, the calling thread takes no signal, and so do for good the threads that it
/// starts meanwhile. Except for those that a thread's own instructions raise: blocked, they would
/// end the process past the program's handler for them (a report of a crash, a sandbox's SIGSYS).
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    ::sigset_t blocked;
    (void)::sigfillset(&blocked);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) {
      (void)::sigdelset(&blocked, own);
    }
    // Can fail for none of these arguments.
    (void)::pthread_sigmask(SIG_BLOCK, &blocked, &before_);
  }
  ~SignalsBlocked() { (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  ::sigset_t before_{};
};

}  // namespace ckptring::os
