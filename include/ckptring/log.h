// One log sink for the library and for the checkpoint process (whose lines arrive through a pipe).
#pragma once

#include <ckptring/export.h>

#include <functional>
#include <string_view>

namespace ckptring {

enum class LogLevel : int { off = 0, error = 1, warn = 2, info = 3, debug = 4 };

/// Receives one complete line without a newline. The line starts with "[rank R]" and, where it
/// concerns one save, "[save N]".
///
/// Called from any thread, one call at a time. Nobody waits for it: a line of another thread is
/// handed over, in its turn, by the thread that it is busy in (behind 4,096 that wait, further ones
/// go to stderr). It may call into this library; a line that comes of that goes to stderr. But it
/// must not wait for a save, which may need the thread that it runs in: `save` where it would have
/// to, `close`, `prepare`, `ready` and the waits of a checkpointer throw invalid_argument there,
/// only futures and destructors cannot tell.
using LogHandler = std::function<void(LogLevel level, std::string_view line)>;

/// Replaces the sink. An empty handler restores the default: stderr, as "ckptring LEVEL line".
/// When this returns, the handler before does not run any more, unless it is the one that calls
/// this. A forked child has its parent's handler, but the default if another thread was in it.
CKPTRING_API void set_log_handler(LogHandler handler);

/// Lines above this level are dropped before they are formatted. The default comes from the
/// environment, `CKPTRING_LOG=off|error|warn|info|debug`, else `warn`.
CKPTRING_API void set_log_level(LogLevel level);
[[nodiscard]] CKPTRING_API LogLevel log_level() noexcept;

}  // namespace ckptring
