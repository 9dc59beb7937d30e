// CRC-32 as in zip archives (polynomial 0x04C11DB7 reflected), by ISA-L.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::base {

/// CRC-32 of `bytes`, continuing from `seed` (0 to begin).
[[nodiscard]] std::uint32_t crc32(std::span<const std::byte> bytes,
                                  std::uint32_t seed = 0) noexcept;

/// The CRC-32 of A followed by B, from theirs and B's length in bytes.
[[nodiscard]] std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b,
                                          std::uint64_t length_b) noexcept;

}  // namespace ckptring::base
