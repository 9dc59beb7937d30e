// Strings put together in one go.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace ckptring::test {

/// A part with NUL bytes is to be a std::string: a literal would end at the first of them.
inline std::string joined(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) all.append(part);
  return all;
}

}  // namespace ckptring::test
