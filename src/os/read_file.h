// Small files that tell how things are, as those of /proc and /sys.
#pragma once

#include <optional>
#include <string>

namespace ckptring::os {

/// The whole contents; nothing if there is no such file, or it cannot be read.
[[nodiscard]] std::optional<std::string> read_file(const std::string& path);

}  // namespace ckptring::os
