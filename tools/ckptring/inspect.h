// What is in a checkpoint, without reading its payloads.
#pragma once

#include <string>
#include <vector>

namespace ckptring::command {

/// Prints the files as tables, or as one JSON document {"files": [...]}. Takes memory for what the
/// files hold, not for what is printed.
/// @throws Error if a file cannot be read or is damaged, before anything is printed
void inspect(const std::vector<std::string>& files, bool json);

}  // namespace ckptring::command
