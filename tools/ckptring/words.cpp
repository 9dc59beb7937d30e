#include "words.h"

#include <fmt/format.h>

#include <array>

namespace ckptring::command {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

std::string printable(std::string_view text) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (byte(i) < 0x20 || byte(i) == 0x7F) {
      out += fmt::format("\\x{:02x}", byte(i));
    } else if (byte(i) == 0xC2 && byte(i + 1) >= 0x80 && byte(i + 1) < 0xA0) {
      // The control characters of Unicode's second half: to a terminal U+009B is an escape
      // character and a bracket.
      out += fmt::format("\\u{:04x}", byte(++i));
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string shortened(std::string_view text) {
  constexpr std::size_t kBegin = 70;
  constexpr std::size_t kEnd = 40;
  if (text.size() <= kBegin + kEnd) return std::string(text);
  // Not within a character.
  const auto is_within = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::size_t begin = kBegin;
  std::size_t end = text.size() - kEnd;
  while (begin > 0 && is_within(begin)) --begin;
  while (end < text.size() && is_within(end)) ++end;
  return std::string(text.substr(0, begin)) + "..." + std::string(text.substr(end));
}

std::string count(std::uint64_t number, std::string_view singular) {
  return fmt::format("{} {}{}", number, singular, number == 1 ? "" : "s");
}

}  // namespace ckptring::command
