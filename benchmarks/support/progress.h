// A long benchmark's sign of life, and its early end.
#pragma once

#include <string>

namespace bench {

/// From here on SIGINT and SIGTERM end the benchmark at its next sign of life, so that what it
/// wrote and started is removed on the way out.
void watch_interrupts();

/// @throws std::runtime_error if the benchmark is to end
void check_interrupts();

/// Replaces the line on stderr, if that is a terminal, and checks interrupts.
void progress(const std::string& what);

}  // namespace bench
