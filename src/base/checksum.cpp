#include "base/checksum.h"

#include <isa-l/crc.h>
#include <zlib.h>

namespace ckptring::base {

std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
  // ISA-L's "gzip_refl" is the reflected polynomial that zip archives use.
  return crc32_gzip_refl(seed, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b,
                            std::uint64_t length_b) noexcept {
  return static_cast<std::uint32_t>(
      ::crc32_combine64(crc_a, crc_b, static_cast<z_off64_t>(length_b)));
}

}  // namespace ckptring::base
