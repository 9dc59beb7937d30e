// The least that reading a file from the disk can cost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace bench {

/// What `window` must hold.
inline constexpr std::size_t kBareReaderWindow = 8u << 20;

/// Reads the first `bytes` of `path` with O_DIRECT in pieces of 1 MiB, eight in flight, each into
/// its place in `window`, and does nothing with them. No page cache, no checksums, no copy. `bytes`
/// is a multiple of 4096 and not beyond the file; `window` begins at such an address.
/// @return seconds from opening the file to its last byte
/// @throws std::system_error, also where io_uring or O_DIRECT is refused
double read_bare(const std::string& path, std::uint64_t bytes, std::span<std::byte> window);

}  // namespace bench
