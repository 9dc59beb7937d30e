// What a process uses, as the kernel counts it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace bench {

/// Bytes. PSS: shared pages count for each process in proportion, so sums over processes count
/// each page once.
struct ProcessMemory {
  std::uint64_t pss = 0;
  std::uint64_t pss_anonymous = 0;
  std::uint64_t pss_file = 0;
  std::uint64_t pss_shared_memory = 0;
  std::uint64_t page_tables = 0;
};

/// From /proc/PID/smaps_rollup and /proc/PID/status.
/// @throws std::runtime_error if the process is gone or may not be looked at
ProcessMemory memory_of(::pid_t process);

/// A process as the other side of a ring.
struct ProcessWithoutRing {
  std::uint64_t ring_bytes = 0;  ///< size of its memfd mappings
  std::uint64_t pss_bytes = 0;   ///< of everything else
  std::uint64_t rss_bytes = 0;   ///< of everything else; libraries count whole
};

/// From /proc/PID/smaps. Meant for the checkpoint process, whose only memfd is the ring.
/// @throws std::runtime_error if the process is gone or may not be looked at
ProcessWithoutRing memory_without_ring(::pid_t process);

/// The processes of a session, without those that have ended and were not waited for.
/// @param leader the process that began the session, whether it lives or not
/// @throws std::filesystem::filesystem_error if /proc cannot be read
std::vector<::pid_t> session_of(::pid_t leader);

/// The same, and the children of these that began a session of their own.
/// @throws std::filesystem::filesystem_error if /proc cannot be read
std::vector<::pid_t> family_of(::pid_t leader);

/// User and system time of all its threads so far, of those that have ended too.
/// @throws std::system_error if the process is gone
double cpu_seconds_of(::pid_t process);

/// The same of the calling process.
double own_cpu_seconds();

}  // namespace bench
