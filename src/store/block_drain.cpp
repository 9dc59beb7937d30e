#include "store/block_drain.h"

#include "base/align.h"
#include "base/checksum.h"

#include <ckptring/error.h>

#include <algorithm>
#include <optional>

namespace ckptring::store {
namespace {

constexpr std::uint64_t kFixupBytes = 4;

[[noreturn]] void broken(const char* cause) {
  throw Error(ErrorCode::internal, "finalize a block", "", cause);
}

}  // namespace

BlockDrain::BlockDrain(DrainTables tables, std::uint64_t block_bytes, std::uint64_t total_bytes)
    : tables_(tables), block_bytes_(block_bytes), total_bytes_(total_bytes) {
  if (block_bytes_ == 0) broken("the block size is zero");
  check_tables();
}

void BlockDrain::check_tables() const {
  std::uint64_t end = 0;
  std::uint64_t entries = 0;
  for (const DrainTables::PayloadExtent& payload : tables_.payloads) {
    const std::optional<std::uint64_t> stop = base::checked_add(payload.file_offset, payload.size);
    if (payload.file_offset < end || !stop || *stop > total_bytes_) {
      broken("a payload lies outside of the file or overlaps another");
    }
    if (payload.first_ledger_entry != entries) broken("a payload has the wrong ledger entry");
    entries += piece_count(payload);
    end = *stop;
  }
  if (entries != tables_.ledger.size()) broken("the ledger has the wrong size");

  std::uint64_t fixup_end = 0;
  std::size_t payload_after = 0;  // first payload that ends behind the fix-up's begin
  for (const DrainTables::FixupEntry& fixup : tables_.fixups) {
    const std::optional<std::uint64_t> stop = base::checked_add(fixup.file_offset, kFixupBytes);
    if (fixup.file_offset < fixup_end || !stop || *stop > total_bytes_) {
      broken("a checksum field lies outside of the file or overlaps another");
    }
    fixup_end = *stop;
    if (fixup.payload >= tables_.payloads.size()) broken("a checksum field has no payload");
    const DrainTables::PayloadExtent& payload = tables_.payloads[fixup.payload];
    if (fixup.file_offset < payload.file_offset + payload.size) {
      broken("a checksum field lies before the end of its payload");
    }
    // A field inside a payload would be patched after that payload's checksum was taken.
    while (payload_after < tables_.payloads.size() &&
           tables_.payloads[payload_after].file_offset + tables_.payloads[payload_after].size <=
               fixup.file_offset) {
      ++payload_after;
    }
    // Empty payloads hide nothing: look past them.
    std::size_t overlapping = payload_after;
    while (overlapping < tables_.payloads.size() && tables_.payloads[overlapping].size == 0 &&
           tables_.payloads[overlapping].file_offset < fixup_end) {
      ++overlapping;
    }
    if (overlapping < tables_.payloads.size() &&
        tables_.payloads[overlapping].file_offset < fixup_end) {
      broken("a checksum field lies inside of a payload");
    }
  }
}

void BlockDrain::finalize(std::uint64_t file_offset, std::span<std::byte> block) {
  if (file_offset % block_bytes_ != 0 || file_offset >= total_bytes_) {
    broken("the block does not belong to the file");
  }
  const std::uint64_t size = std::min(block_bytes_, total_bytes_ - file_offset);
  if (block.size() < size) broken("the block is too short");
  const std::uint64_t end = file_offset + size;
  if (file_offset != expected_offset_) seek(file_offset);

  for (std::size_t i = next_payload_; i < tables_.payloads.size(); ++i) {
    const DrainTables::PayloadExtent& payload = tables_.payloads[i];
    if (payload.file_offset >= end) break;
    const std::uint64_t payload_end = payload.file_offset + payload.size;
    if (payload.size != 0) {
      const std::uint64_t from = std::max(file_offset, payload.file_offset);
      const std::uint64_t to = std::min(end, payload_end);
      const std::uint64_t value =
          DrainTables::kComputed | base::crc32(block.subspan(from - file_offset, to - from));
      std::uint64_t& entry =
          tables_.ledger[payload.first_ledger_entry +
                         (file_offset / block_bytes_ - payload.file_offset / block_bytes_)];
      if (entry != 0 && entry != value) broken("a block changed after its checksum was recorded");
      entry = value;
    }
    // Payloads lie in file order without overlap, so all but the last one here end in the block.
    if (payload_end <= end) next_payload_ = i + 1;
  }

  for (std::size_t i = next_fixup_; i < tables_.fixups.size(); ++i) {
    const DrainTables::FixupEntry& fixup = tables_.fixups[i];
    if (fixup.file_offset >= end) break;
    const std::uint32_t crc = payload_crc(fixup.payload);
    // A field may straddle two blocks: each gets the bytes that lie in it.
    for (std::uint64_t byte = 0; byte < kFixupBytes; ++byte) {
      const std::uint64_t at = fixup.file_offset + byte;
      if (at < file_offset || at >= end) continue;
      block[at - file_offset] = static_cast<std::byte>(crc >> (8 * byte));
    }
    if (fixup.file_offset + kFixupBytes <= end) next_fixup_ = i + 1;
  }
  expected_offset_ = end;
}

void BlockDrain::seek(std::uint64_t file_offset) {
  const auto payload = std::partition_point(
      tables_.payloads.begin(), tables_.payloads.end(),
      [&](const auto& entry) { return entry.file_offset + entry.size <= file_offset; });
  next_payload_ = static_cast<std::size_t>(payload - tables_.payloads.begin());
  const auto fixup = std::partition_point(
      tables_.fixups.begin(), tables_.fixups.end(),
      [&](const auto& entry) { return entry.file_offset + kFixupBytes <= file_offset; });
  next_fixup_ = static_cast<std::size_t>(fixup - tables_.fixups.begin());
}

std::uint64_t BlockDrain::piece_count(const DrainTables::PayloadExtent& payload) const {
  return pieces_of(payload.file_offset, payload.size, block_bytes_);
}

std::uint32_t BlockDrain::payload_crc(std::uint64_t payload_index) const {
  const DrainTables::PayloadExtent& payload = tables_.payloads[payload_index];
  const std::uint64_t pieces = piece_count(payload);
  std::uint32_t crc = 0;  // of no bytes at all
  std::uint64_t at = payload.file_offset;
  for (std::uint64_t piece = 0; piece < pieces; ++piece) {
    const std::uint64_t entry = tables_.ledger[payload.first_ledger_entry + piece];
    if ((entry & DrainTables::kComputed) == 0) broken("an earlier block is missing in the ledger");
    const std::uint64_t stop =
        std::min(payload.file_offset + payload.size, (at / block_bytes_ + 1) * block_bytes_);
    const auto piece_crc = static_cast<std::uint32_t>(entry);
    crc = piece == 0 ? piece_crc : base::crc32_combine(crc, piece_crc, stop - at);
    at = stop;
  }
  return crc;
}

}  // namespace ckptring::store
