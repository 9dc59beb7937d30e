// How much memory this process may still take before something is killed for it.
#pragma once

#include <cstdint>
#include <string>

namespace ckptring::os {

struct MemoryLeft {
  std::uint64_t bytes;     ///< the smaller of what system and cgroup leave
  std::string limited_by;  ///< "MemAvailable" or the cgroup's folder
};

/// Reads /proc/meminfo and the memory cgroups (v1 or v2) from this process's up to the root.
/// Page cache that the cgroup could drop counts as left. Never fails: without any figure, all of
/// the physical memory counts.
/// @param root where /proc and /sys/fs/cgroup are found
MemoryLeft memory_left(const std::string& root = "");

}  // namespace ckptring::os
