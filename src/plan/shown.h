// Names from a file, fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace ckptring::plan {

/// The name as ASCII, cut off where it is longer than anybody reads.
inline std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 100;
  std::string out;
  for (const char c : text.substr(0, kLongest)) out += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > kLongest) out += "...";
  return out;
}

}  // namespace ckptring::plan
