// Bytes, in words.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace ckptring::base {

/// "1.5 MiB".
inline std::string mib(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace ckptring::base
