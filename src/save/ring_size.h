// How large the ring is, and why.
#pragma once

#include "os/memory_left.h"
#include "ring/layout.h"

#include <ckptring/config.h>

#include <cstdint>
#include <functional>
#include <string>

namespace ckptring::save {

struct RingSize {
  ring::Geometry geometry;
  std::string why;  ///< in words, for the log
};

/// Asked only where the answer matters: the kernel takes longer to give it than to make the ring.
using AskMemoryLeft = std::function<os::MemoryLeft()>;

/// Of this machine and this process's groups.
os::MemoryLeft ask_memory_left();

/// Sharers of this machine's memory: the configured number, else what launchers say, else 1.
/// @throws Error invalid_argument
int ranks_on_node(const CheckpointProcessConfig& config);

/// Checks every number of the configuration that concerns the ring.
/// @throws Error invalid_argument; out_of_memory if a given ring does not fit into what is left
void check_ring_config(const CheckpointerConfig& config, const AskMemoryLeft& left);

/// The ring for files of up to `file_bytes` whose tables take `tables_bytes`. With a given size
/// both count only for the plan area. `file_bytes` 0: not known yet, as small as possible.
RingSize choose_ring(const CheckpointerConfig& config, std::uint64_t file_bytes,
                     std::uint64_t tables_bytes, const AskMemoryLeft& left);

/// Whether a ring is so much larger than the one there is that it is worth what it costs: the saves
/// in flight are waited for, another process is started, and all memory is touched, and made known
/// to devices, for the first time once more. Less than half as large again saves a small part of
/// one wait for the disk.
[[nodiscard]] bool is_worth_making(const ring::Geometry& wanted, const ring::Geometry& instead_of);

}  // namespace ckptring::save
