#include <ckptring/save_id.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>

namespace ckptring {

std::string to_string(const SaveId& id) { return fmt::format("{:02x}", fmt::join(id.bytes, "")); }

std::optional<SaveId> save_id_from(std::string_view text) {
  SaveId id;
  if (text.size() != 2 * id.bytes.size()) return std::nullopt;
  for (const char digit : text) {
    if (!((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f'))) return std::nullopt;
  }
  for (std::size_t i = 0; i < id.bytes.size(); ++i) {
    const std::string_view two = text.substr(2 * i, 2);
    (void)std::from_chars(two.data(), two.data() + two.size(), id.bytes[i], 16);
  }
  return id;
}

}  // namespace ckptring
