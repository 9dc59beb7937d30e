// Time limits given in seconds by a configuration.
#pragma once

#include <algorithm>
#include <chrono>

namespace ckptring::store {

/// `secs` from now. Anything above three years is the same as for ever.
[[nodiscard]] inline std::chrono::steady_clock::time_point deadline_after(double secs) {
  const std::chrono::duration<double> bounded(std::clamp(secs, 0.0, 1e8));
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(bounded);
}

}  // namespace ckptring::store
