// Which attempt to save a file is of.
#pragma once

#include <ckptring/export.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ckptring {

/// 128 bits that all files of one attempt to save have in common, on all ranks, and the files of no
/// other: so that the files of two attempts in one directory are never taken for one checkpoint.
struct SaveId {
  std::array<std::uint8_t, 16> bytes{};

  friend bool operator==(const SaveId&, const SaveId&) = default;
};

/// 32 hexadecimal digits in lower case.
CKPTRING_API std::string to_string(const SaveId& id);
/// Of such digits; nothing for any other text.
CKPTRING_API std::optional<SaveId> save_id_from(std::string_view text);

}  // namespace ckptring
