// Which files a PATH on the command line means.
#pragma once

#include <string>
#include <vector>

namespace ckptring::command {

/// `path` itself if it is a file; the checkpoint_{rank}.pt in it, by rank, if it is a directory.
/// @throws Error not_found (also for a directory without any), io, permission
std::vector<std::string> checkpoint_files(const std::string& path);

}  // namespace ckptring::command
