// The thread that hands lines of the log to the program's handler (see ckptring/log.h).
//
// It is made for the first line, lives as long as the process, and does nothing else. What the
// handler waits for, and how long, is nobody's business: no work of this library needs that thread,
// and nobody waits for it but set_log_handler and, for a moment, this.
#pragma once

#include <chrono>

namespace ckptring::os {

/// How long close() of a checkpointer waits for the handler.
inline constexpr std::chrono::seconds kLogHandlerLimit{1};

/// Waits until what was logged before has been handed over, at most so long. Not at all in the
/// handler, which would wait for itself.
void wait_for_log_handler(std::chrono::milliseconds limit) noexcept;

/// Has forks wait for it from now on, after whatever is registered later: see pthread_atfork.
void prepare_log_for_forks() noexcept;

}  // namespace ckptring::os
