#include "save/ring_size.h"

#include "base/align.h"
#include "base/launcher.h"
#include "base/mebibytes.h"

#include <ckptring/error.h>
#include <fmt/format.h>

#include <algorithm>

namespace ckptring::save {
namespace {

constexpr const char* kOperation = "configure the ring";
/// Of the memory that is left, on each node, all ranks' automatic rings together take at most
/// one part in so many.
constexpr std::uint64_t kShareOfMemory = 4;
/// Untouched parts of the plan area cost nothing, so there is room for a million tensors.
constexpr std::uint64_t kDefaultPlanBytes = 64ull << 20;
constexpr unsigned kMostSavesInFlight = 8;
/// Of an automatic ring.
constexpr std::uint64_t kFewestBlocks = 2;

Error invalid(const std::string& what) {
  return {ErrorCode::invalid_argument, kOperation, "", what};
}

void check_seconds(double seconds, const char* name) {
  if (!(seconds > 0)) {  // NaN too
    throw Error(ErrorCode::invalid_argument, "configure the checkpoint process", "",
                fmt::format("{} must be positive, and is {}", name, seconds));
  }
}

}  // namespace

os::MemoryLeft ask_memory_left() { return os::memory_left(); }

int ranks_on_node(const CheckpointProcessConfig& config) {
  if (config.ranks_on_node < 0) {
    throw invalid(
        fmt::format("ranks_on_node must not be negative, and is {}", config.ranks_on_node));
  }
  if (config.ranks_on_node > 0) return config.ranks_on_node;
  return base::launched_on_this_machine().value_or(1);
}

void check_ring_config(const CheckpointerConfig& config, const AskMemoryLeft& left) {
  const CheckpointProcessConfig& process = config.process_config;
  if (config.max_saves_in_flight < 1 || config.max_saves_in_flight > kMostSavesInFlight) {
    throw invalid(fmt::format("max_saves_in_flight must be 1 to {}, and is {}", kMostSavesInFlight,
                              config.max_saves_in_flight));
  }
  check_seconds(process.subprocess_init_timeout_secs, "subprocess_init_timeout_secs");
  check_seconds(process.subprocess_shutdown_timeout_secs, "subprocess_shutdown_timeout_secs");
  check_seconds(process.stall_timeout_secs, "stall_timeout_secs");
  check_seconds(process.orphan_timeout_secs, "orphan_timeout_secs");
  check_seconds(process.stopped_timeout_secs, "stopped_timeout_secs");
  (void)ranks_on_node(process);
  // The smallest ring with these numbers shows whether block and plan sizes make sense.
  ring::Geometry geometry{process.block_bytes, 2, config.max_saves_in_flight + 1,
                          process.plan_bytes != 0 ? process.plan_bytes : kDefaultPlanBytes};
  if (const std::string complaint = geometry.complaint(); !complaint.empty()) {
    throw invalid(complaint);
  }
  if (process.ring_bytes == 0) return;
  geometry.slot_count = process.ring_bytes / process.block_bytes;
  if (geometry.slot_count < 2) {
    throw invalid(fmt::format("ring_bytes must be 0 or at least 2 blocks of {} bytes, and is {}",
                              process.block_bytes, process.ring_bytes));
  }
  if (const std::string complaint = geometry.complaint(); !complaint.empty()) {
    throw invalid(complaint);
  }
  if (const os::MemoryLeft now = left(); process.ring_bytes > now.bytes) {
    throw Error(ErrorCode::out_of_memory, kOperation, "",
                fmt::format("ring_bytes asks for {}, and {} leaves {}",
                            base::mib(process.ring_bytes), now.limited_by, base::mib(now.bytes)));
  }
}

RingSize choose_ring(const CheckpointerConfig& config, std::uint64_t file_bytes,
                     std::uint64_t tables_bytes, const AskMemoryLeft& left) {
  const CheckpointProcessConfig& process = config.process_config;
  const std::uint64_t block = process.block_bytes;
  RingSize size;
  size.geometry.block_bytes = block;
  size.geometry.record_count = config.max_saves_in_flight + 1;
  size.geometry.plan_bytes = process.plan_bytes;
  if (process.plan_bytes == 0) {
    // Room for the tables of every save in flight; the next file may have a few more tensors.
    const std::uint64_t wanted = 2 * tables_bytes * config.max_saves_in_flight;
    size.geometry.plan_bytes =
        base::align_up(std::max(wanted, kDefaultPlanBytes), ring::kCacheLine);
  }
  if (process.ring_bytes != 0) {
    size.geometry.slot_count = process.ring_bytes / block;
    size.why = "as configured";
    return size;
  }
  const std::uint64_t wanted = base::ceil_div(file_bytes, block);
  size.geometry.slot_count = std::max(wanted, kFewestBlocks);
  size.why = fmt::format("as large as the file of {}", base::mib(file_bytes));
  if (wanted < kFewestBlocks) {
    size.why = fmt::format("the fewest there are; the file has {}", base::mib(file_bytes));
  }
  if (wanted <= kFewestBlocks) return size;
  const int sharers = ranks_on_node(process);
  const os::MemoryLeft now = left();
  const std::uint64_t most = std::max(
      now.bytes / kShareOfMemory / static_cast<std::uint64_t>(sharers) / block, kFewestBlocks);
  if (wanted > most) {
    size.geometry.slot_count = most;
    size.why = fmt::format(
        "a quarter of the {} that {} leaves, shared by {} rank(s); the file of {} streams through",
        base::mib(now.bytes), now.limited_by, sharers, base::mib(file_bytes));
  }
  return size;
}

bool is_worth_making(const ring::Geometry& wanted, const ring::Geometry& instead_of) {
  return wanted.slot_count >= instead_of.slot_count + base::ceil_div(instead_of.slot_count, 2);
}

}  // namespace ckptring::save
