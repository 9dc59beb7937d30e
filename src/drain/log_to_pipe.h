// The helper's end of its log: lines through a pipe to the trainer.
#pragma once

namespace ckptring::drain {

/// Sends this process's log to `fd`, in the threads that log: no word is lost at its end. Lines
/// that do not fit into a full pipe are dropped: the helper never waits for the trainer's log. To
/// be called once.
void log_to_pipe(int fd);

}  // namespace ckptring::drain
