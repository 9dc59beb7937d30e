// One log sink for the library and for the checkpoint process (whose lines arrive through a pipe).
#pragma once

#include <ckptring/export.h>

#include <functional>
#include <string_view>

namespace ckptring {

enum class LogLevel : int { off = 0, error = 1, warn = 2, info = 3, debug = 4 };

/// Receives one complete line without a newline. The line starts with "[rank R]" and, where it
/// concerns one save, "[save N]". May be called from any thread, one call at a time.
using LogHandler = std::function<void(LogLevel level, std::string_view line)>;

/// Replaces the sink. An empty handler restores the default: stderr, as "ckptring LEVEL line".
CKPTRING_API void set_log_handler(LogHandler handler);

/// Lines above this level are dropped before they are formatted. The default comes from the
/// environment, `CKPTRING_LOG=off|error|warn|info|debug`, else `warn`.
CKPTRING_API void set_log_level(LogLevel level);
[[nodiscard]] CKPTRING_API LogLevel log_level() noexcept;

}  // namespace ckptring
