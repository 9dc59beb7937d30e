// Anonymous shared memory, passed by descriptor.
#pragma once

#include "os/unique_fd.h"

#include <cstdint>

namespace ckptring::os {

/// A memfd of `bytes`, close-on-exec, sealed against shrinking and growing.
/// `name` shows in /proc/PID/maps only.  @throws Error
UniqueFd make_memfd(const char* name, std::uint64_t bytes);

}  // namespace ckptring::os
