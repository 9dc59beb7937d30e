// Reads every byte of a checkpoint and compares with its checksums.
#pragma once

#include <string>
#include <vector>

namespace ckptring::command {

/// Prints a line per file to stdout, or what is damaged to stderr; goes on after damage. Draws a
/// progress bar on stderr if that is a terminal.
/// @return whether all files are whole
/// @throws Error if a file cannot be read
bool verify(const std::vector<std::string>& files);

}  // namespace ckptring::command
