// The least that a durable file can cost: direct writes through io_uring, and nothing else.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace bench {

/// Creates `path`, reserves its size, writes `memory` with O_DIRECT in pieces of 4 MiB, eight in
/// flight, and syncs it. No checksums, no temporary name, no second process. `memory` must lie
/// and end on a multiple of 4096 bytes.
/// @return seconds from creating the file to having synced it
/// @throws std::system_error, also if the file exists or io_uring or O_DIRECT is refused
double write_bare(const std::string& path, std::span<const std::byte> memory);

}  // namespace bench
