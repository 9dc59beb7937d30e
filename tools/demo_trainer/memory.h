// What saving costs in memory, as the kernel counts it.
#pragma once

#include <cstdint>

namespace demo {

struct SharedRing {
  std::uint64_t ring_bytes = 0;    ///< allocated shared memory, which both processes map
  std::uint64_t helper_bytes = 0;  ///< the checkpoint process's own, its share of the rest (PSS)
};

/// Looks at the descriptors and mappings of the checkpoint process. All zero if it is gone or may
/// not be looked at.
SharedRing measure_ring(int process_id);

}  // namespace demo
