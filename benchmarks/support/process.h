// What a process uses, as the kernel counts it.
#pragma once

#include <sys/types.h>

#include <cstdint>

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

/// User and system time of all its threads so far, in steps of the kernel's clock (10 ms).
/// @throws std::runtime_error if the process is gone
double cpu_seconds_of(::pid_t process);

/// The same of the calling process, in microseconds' steps.
double own_cpu_seconds();

}  // namespace bench
