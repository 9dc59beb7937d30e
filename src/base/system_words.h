// What the system's numbers mean, in words.
//
// Always in English, and without a look at the environment: strerror, strsignal and std::error_code
// translate, and so read LANGUAGE, which another thread may be changing meanwhile.
#pragma once

#include <string>

namespace ckptring::base {

/// "No such file or directory".
[[nodiscard]] std::string words_of_errno(int errno_value);

/// "Killed".
[[nodiscard]] std::string words_of_signal(int signal);

}  // namespace ckptring::base
