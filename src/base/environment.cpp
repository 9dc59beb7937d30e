#include "base/environment.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace ckptring::base {

std::optional<int> number_from_environment(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::string_view digits(text);
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) {
    throw Error(ErrorCode::invalid_argument, "read the environment's", name,
                fmt::format("\"{}\" is not a whole number", digits));
  }
  return number;
}

}  // namespace ckptring::base
