// What fio makes of the same disk, as a figure that others know.
#pragma once

#include <cstdint>
#include <string>

namespace bench {

/// Whether there is a program fio in PATH.
bool have_fio();

/// One fresh file of `bytes`, rounded up to 4 MiB: sequential direct writes of 4 MiB through
/// io_uring, eight in flight, reserved before, synced at the end.
/// @param directory where the file and fio's own output go; both are removed
/// @return bytes per second as fio has it, its start not included
/// @throws std::runtime_error with the exit status
double fio_write_rate(const std::string& directory, std::uint64_t bytes);

/// Reads the file `path` in the same way, front to back.
/// @param directory where fio's own output goes; it is removed
/// @return and throws as above
double fio_read_rate(const std::string& directory, const std::string& path);

}  // namespace bench
