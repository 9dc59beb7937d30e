// Stops itself, then becomes ckptring-drain: whoever wants to follow the checkpoint process from
// its very first system call attaches while it is stopped.
#include <unistd.h>

#include <csignal>

int main(int, char** argv) {
  (void)::raise(SIGSTOP);
  (void)::execv(CKPTRING_DRAIN_PATH, argv);
  return 127;
}
