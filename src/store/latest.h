// ckptring::latest over any file system.
#pragma once

#include "store/file_system.h"

#include <ckptring/checkpoints.h>

#include <optional>
#include <string>

namespace ckptring::store {

/// See ckptring::latest. What a checkpoint says of itself is always read from the kernel's files.
[[nodiscard]] std::optional<CheckpointInfo> latest_in(FileSystem& files,
                                                      const std::string& directory,
                                                      const LatestOptions& options);

}  // namespace ckptring::store
