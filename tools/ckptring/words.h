// Numbers and names from files, fit for a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ckptring::command {

/// "1.4 GiB", "17 B".
std::string human_bytes(std::uint64_t bytes);

/// The text with its control characters written out: a file must not command the terminal.
std::string printable(std::string_view text);

/// The text, without its middle where it is longer than anybody reads.
std::string shortened(std::string_view text);

/// "1 tensor", "2 tensors".
std::string count(std::uint64_t number, std::string_view singular);

}  // namespace ckptring::command
