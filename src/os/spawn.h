// Starting a small program from a large process, at a cost that does not depend on its size.
#pragma once

#include "os/uninherited_fd.h"

#include <sys/types.h>

#include <string>
#include <vector>

namespace ckptring::os {

struct SpawnRequest {
  std::string executable;  ///< absolute path
  /// The same, open: then this file is executed, whatever lies at the path by now. Not for scripts,
  /// whose interpreter could not open it. -1: by the path.
  int program = -1;
  std::vector<std::string> arguments;    ///< argv, the name first
  std::vector<std::string> environment;  ///< "NAME=value"
  /// Ours -> 0, 1, 2, ...: the child has exactly these descriptors.
  std::vector<int> descriptors;
};

struct Spawned {
  pid_t pid;
  UninheritedFd pidfd;
  bool closed_one_by_one;  ///< other descriptors, for want of close_range (Linux 5.9)
};

/// Runs the program in a session of its own, with an empty signal mask and default dispositions.
/// The calling thread sleeps until the exec has happened (0.1 to 0.2 ms); forks do not wait for it.
/// @throws Error (with the exec's own errno) if it could not be started
Spawned spawn(const SpawnRequest& request);

}  // namespace ckptring::os
