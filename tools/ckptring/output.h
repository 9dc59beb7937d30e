// The standard output.
#pragma once

#include <string_view>

namespace ckptring::command {

/// Written and flushed, or an error: a full disk behind the output must not pass for success.
/// @throws Error
void print(std::string_view text);

}  // namespace ckptring::command
