// A long benchmark's sign of life, and its early end.
#pragma once

#include <string>

namespace bench {

/// From here on SIGINT and SIGTERM end the benchmark at its next sign of life, so that what it
/// wrote and started is removed on the way out.
void watch_interrupts();

/// @throws std::runtime_error if the benchmark is to end
void check_interrupts();

/// A line on stderr, and checks interrupts. On a terminal it replaces the one before.
void progress(const std::string& what);

/// Takes the last line away again from a terminal, for what follows on it.
void end_progress();

}  // namespace bench
