// Checksums and patches blocks in file order. The one place where a block's bytes become final;
// used by the checkpoint process on ring memory and by the sync path on private memory.
//
//   block 0            block 1            block 2            block 3
//   |..[== payload 0 ==|=======]f..[= p 1 =|====]f............|....f.....f.|
//      piece 0 of p 0   piece 1    piece 0  piece 1          fix-ups of p 0, p 1
//
// No running checksum is kept. The ledger holds the CRC-32 of each piece (payload ∩ block); a
// payload's CRC-32 is its pieces joined. So a process that starts in the middle of a file, with
// the ledger of its predecessor, patches the same values.
#pragma once

#include "store/drain_tables.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::store {

/// One thread. Does not own the tables.
class BlockDrain {
 public:
  /// Checks every entry: the tables come from shared memory.
  /// @throws Error internal if they contradict each other, the block size or the file's size
  BlockDrain(DrainTables tables, std::uint64_t block_bytes, std::uint64_t total_bytes);

  /// Computes the CRC-32 of every payload piece in the block, stores it in the ledger, then
  /// patches the fix-ups that lie in it. Idempotent; blocks in file order, starting anywhere as
  /// long as earlier blocks went through this or an earlier drain on the same ledger.
  /// @param file_offset a multiple of the block size
  /// @param block the whole block, or what the file has left of it; more is not looked at
  /// @throws Error internal if the block is not one of this file, if an earlier one is missing in
  ///         the ledger, or if a piece differs from what the ledger already says of it
  void finalize(std::uint64_t file_offset, std::span<std::byte> block);

 private:
  void check_tables() const;
  void seek(std::uint64_t file_offset);
  [[nodiscard]] std::uint64_t piece_count(const DrainTables::PayloadExtent& payload) const;
  [[nodiscard]] std::uint32_t payload_crc(std::uint64_t payload) const;

  DrainTables tables_;
  std::uint64_t block_bytes_;
  std::uint64_t total_bytes_;
  // Where the next block in file order begins, and the first payload and fix-up that end in or
  // behind it.
  std::uint64_t expected_offset_ = 0;
  std::size_t next_payload_ = 0;
  std::size_t next_fixup_ = 0;
};

}  // namespace ckptring::store
