// Which bytes are text.
#pragma once

#include <string_view>

namespace ckptring::plan {

/// Whether `text` is UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above
/// U+10FFFF. The empty string is.
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

}  // namespace ckptring::plan
