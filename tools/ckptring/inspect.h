// What is in a checkpoint, without reading its payloads.
#pragma once

#include <string>
#include <vector>

namespace ckptring::command {

/// The files as tables, or as one JSON document {"files": [...]}.
/// @throws Error if a file cannot be read or is damaged
std::string inspect(const std::vector<std::string>& files, bool json);

}  // namespace ckptring::command
