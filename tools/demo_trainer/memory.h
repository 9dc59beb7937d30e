// What saving costs in memory, as the kernel counts it.
#pragma once

#include <cstdint>

namespace demo {

struct SharedRing {
  std::uint64_t ring_bytes = 0;    ///< of the shared memory that both processes map
  std::uint64_t helper_bytes = 0;  ///< the checkpoint process's own, its share of the rest (PSS)
};

/// Reads /proc/<process_id>/smaps. All zero if the process is gone or may not be looked at.
SharedRing measure_ring(int process_id);

}  // namespace demo
