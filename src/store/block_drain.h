// Checksums, patches and submits blocks in file order. The one place where a block's bytes become
// final; used by the checkpoint process on ring memory and by the sync path on private memory.
#pragma once

#include "plan/file_plan.h"
#include "store/save_sink.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::store {

/// The part of a FilePlan that draining needs, as it lies in the ring's plan area (or in private
/// memory). All spans are in file order.
struct DrainTables {
  struct PayloadExtent {
    std::uint64_t file_offset;
    std::uint64_t size;
    std::uint64_t first_ledger_entry;  ///< its pieces (payload ∩ block) have consecutive entries
  };
  struct FixupEntry {
    std::uint64_t file_offset;
    std::uint64_t payload;
  };
  std::span<const PayloadExtent> payloads;
  std::span<const FixupEntry> fixups;
  /// One write-once value per piece: 0, or `kComputed | crc32`.
  std::span<std::uint64_t> ledger;
  static constexpr std::uint64_t kComputed = 1ull << 32;
};

/// Sizes needed for a plan cut into blocks.
struct DrainTableSizes {
  std::uint64_t payloads;
  std::uint64_t fixups;
  std::uint64_t ledger;
};
DrainTableSizes drain_table_sizes(const plan::FilePlan& plan, std::uint64_t block_bytes);

/// Fills the two constant tables and zeroes the ledger.
void fill_drain_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                       std::span<DrainTables::PayloadExtent> payloads,
                       std::span<DrainTables::FixupEntry> fixups,
                       std::span<std::uint64_t> ledger);

class BlockDrain {
 public:
  /// @throws Error internal if the tables contradict each other (they come from shared memory)
  BlockDrain(DrainTables tables, std::uint64_t block_bytes, std::uint64_t total_bytes);

  /// Computes the CRC-32 of every payload piece in the block, stores it in the ledger, then
  /// patches the fix-ups that lie in it. Idempotent; blocks in file order, starting anywhere as
  /// long as earlier blocks went through this or an earlier drain on the same ledger.
  void finalize(std::uint64_t file_offset, std::span<std::byte> block);

 private:
  [[nodiscard]] std::uint32_t payload_crc(std::size_t payload) const;
  DrainTables tables_;
  std::uint64_t block_bytes_;
  std::uint64_t total_bytes_;
};

}  // namespace ckptring::store
