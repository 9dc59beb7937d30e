// The part of a FilePlan that draining needs, as it lies in the ring's plan area or in private
// memory, one table behind the other: extents | fix-ups | ledger.
#pragma once

#include "plan/file_plan.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::store {

/// All spans are in file order.
struct DrainTables {
  struct PayloadExtent {
    std::uint64_t file_offset;
    std::uint64_t size;                ///< bytes; may be 0
    std::uint64_t first_ledger_entry;  ///< its pieces (payload ∩ block) have consecutive entries
  };
  struct FixupEntry {
    std::uint64_t file_offset;  ///< of a four-byte little-endian field
    std::uint64_t payload;      ///< index into `payloads`
  };
  std::span<const PayloadExtent> payloads;
  std::span<const FixupEntry> fixups;
  /// One write-once value per piece: 0, or `kComputed | crc32`.
  std::span<std::uint64_t> ledger;
  static constexpr std::uint64_t kComputed = 1ull << 32;
};

/// Entries of each table.
struct DrainTableSizes {
  std::uint64_t payloads;
  std::uint64_t fixups;
  std::uint64_t ledger;

  /// What a plan needs that is cut into blocks.
  [[nodiscard]] static DrainTableSizes of(const plan::FilePlan& plan, std::uint64_t block_bytes);

  /// Of all tables. For sizes that were not read from anywhere.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return payloads * sizeof(DrainTables::PayloadExtent) +
           fixups * sizeof(DrainTables::FixupEntry) + ledger * sizeof(std::uint64_t);
  }
};

/// Pieces of a payload: its parts in different blocks.
[[nodiscard]] std::uint64_t pieces_of(std::uint64_t file_offset, std::uint64_t size,
                                      std::uint64_t block_bytes) noexcept;

/// Writes the tables of `plan` to the beginning of `memory`, with a ledger of zeros.
/// @param memory  aligned to 8
/// @throws Error internal if `sizes` are not those of the plan, or do not fit into it
void fill_drain_tables(const plan::FilePlan& plan, std::uint64_t block_bytes,
                       const DrainTableSizes& sizes, std::span<std::byte> memory);

/// The tables at the beginning of `memory`.
/// @throws Error internal if they do not fit into it
[[nodiscard]] DrainTables drain_tables_in(std::span<std::byte> memory,
                                          const DrainTableSizes& sizes);

}  // namespace ckptring::store
