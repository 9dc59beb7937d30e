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
/// Called in a thread of this library's own, which is made for the first line and does nothing
/// else: for one line after the other, in the order in which they were logged. Nothing that this
/// library does needs that thread. So a handler may take its time, or hang, and may call anything
/// in this library: it may save and wait for the save, and close the checkpointer. What it throws
/// is dropped. The thread takes no signals of the program's and has a low priority, as has what the
/// handler starts: before it runs another program it should set both as it wants them.
///
/// Lines wait for it up to 4,096. Further ones go to stderr, in the thread that logs; so do lines
/// that the handler itself gives rise to in its thread, and all lines while the system refuses the
/// thread, or memory. What still waits when the process ends is lost: `close` of a checkpointer
/// waits for the handler for at most a second. It may be called until it is replaced, also while
/// the process exits: what it uses must be there as long.
using LogHandler = std::function<void(LogLevel level, std::string_view line)>;

/// Replaces the sink. An empty handler restores the default: stderr, as "ckptring LEVEL line", in
/// the thread that logs.
///
/// Returns when the handler before has been called for every line that was logged before, and does
/// not run any more: what it used may go. That takes as long as that handler takes, without a
/// limit, so the caller must hold nothing that it needs. Called by a handler, it waits for nothing:
/// what waits is for the next one, and only that call goes on.
///
/// A forked child has its parent's handler and a thread of its own for it, but the default if the
/// parent was in the handler just then, unless the handler itself forks. If the handler returns in
/// a child that it forked, that child ends at once, with status 0.
CKPTRING_API void set_log_handler(LogHandler handler);

/// Lines above this level are dropped before they are formatted. The default comes from the
/// environment, `CKPTRING_LOG=off|error|warn|info|debug`, else `warn`.
CKPTRING_API void set_log_level(LogLevel level);
[[nodiscard]] CKPTRING_API LogLevel log_level() noexcept;

}  // namespace ckptring
