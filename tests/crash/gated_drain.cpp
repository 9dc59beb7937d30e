// Stops itself, then becomes ckptring-drain: whoever wants to follow the checkpoint process from
// its very first system call attaches while it is stopped.
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>

int main(int, char** argv) {
  // If the test dies meanwhile, nobody would ever open the gate.
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)::raise(SIGSTOP);
  (void)::prctl(PR_SET_PDEATHSIG, 0);
  (void)::execv(CKPTRING_DRAIN_PATH, argv);
  return 127;
}
