// Numbers that launchers hand over in the environment.
#pragma once

#include <optional>

namespace ckptring::base {

/// The whole number in the variable `name`; nothing if it is absent or empty.
/// @throws Error invalid_argument for any other text
std::optional<int> number_from_environment(const char* name);

}  // namespace ckptring::base
