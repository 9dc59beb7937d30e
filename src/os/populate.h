// Bringing memory in before it is used.
#pragma once

#include <cstddef>
#include <span>

namespace ckptring::os {

/// Allocates and maps the pages of `memory` that are missing, as if each had been written to; their
/// bytes stay as they are. `memory` is whole pages of a writable mapping.
/// @return false, with errno, if that fails; EINVAL before Linux 5.14. Nothing is lost then: pages
///         come when they are first used.
bool populate(std::span<std::byte> memory) noexcept;

}  // namespace ckptring::os
