#include "plan/utf8.h"

#include <cstdint>
#include <cstring>

namespace ckptring::plan {

bool is_utf8(std::string_view text) noexcept {
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto continuation = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  while (at < end) {
    // Keys are nearly always ASCII: eight bytes at a time.
    while (end - at >= 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, at, 8);
      if ((word & 0x8080808080808080U) != 0) break;
      at += 8;
    }
    if (at == end) return true;
    const auto lead = static_cast<unsigned char>(*at);
    if (lead < 0x80) {
      ++at;
      continue;
    }
    int more = 0;
    std::uint32_t point = 0;
    std::uint32_t smallest = 0;
    if ((lead & 0xE0) == 0xC0) {
      more = 1;
      point = lead & 0x1FU;
      smallest = 0x80;
    } else if ((lead & 0xF0) == 0xE0) {
      more = 2;
      point = lead & 0x0FU;
      smallest = 0x800;
    } else if ((lead & 0xF8) == 0xF0) {
      more = 3;
      point = lead & 0x07U;
      smallest = 0x10000;
    } else {
      return false;
    }
    if (end - at <= more) return false;
    for (int i = 1; i <= more; ++i) {
      if (!continuation(at[i])) return false;
      point = (point << 6) | (static_cast<unsigned char>(at[i]) & 0x3FU);
    }
    if (point < smallest || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return false;
    at += more + 1;
  }
  return true;
}

}  // namespace ckptring::plan
