#include "ring/layout.h"

#include "base/align.h"

#include <algorithm>
#include <cstring>

namespace ckptring::ring {
namespace {
constexpr std::uint64_t kLargestBlock = 1ull << 30;
constexpr std::uint64_t kLargestRing = 1ull << 46;  // 64 TiB: far from any overflow below
constexpr std::uint64_t kMostRecords = 1024;
}  // namespace

std::uint64_t Geometry::slots_offset() const noexcept {
  return base::align_up(sizeof(Header), kCacheLine) + sizeof(ProducerLine) +
         sizeof(SupervisorLine) + sizeof(ConsumerLine);
}

std::uint64_t Geometry::records_offset() const noexcept {
  return slots_offset() + slot_count * sizeof(Slot);
}

std::uint64_t Geometry::plan_offset() const noexcept {
  return records_offset() + record_count * sizeof(Record);
}

std::uint64_t Geometry::blocks_offset() const noexcept {
  return base::align_up(plan_offset() + plan_bytes, kHugePageBytes);
}

std::uint64_t Geometry::total_bytes() const noexcept {
  return blocks_offset() + slot_count * block_bytes;
}

std::string Geometry::complaint() const {
  if (block_bytes == 0 || block_bytes % kBlockAlignment != 0) {
    return "the block size must be a multiple of 4096 bytes, and is " + std::to_string(block_bytes);
  }
  if (block_bytes > kLargestBlock) return "a block must not be larger than 1 GiB";
  if (slot_count < 2) return "the ring must hold at least 2 blocks";
  if (slot_count > kLargestRing / block_bytes) return "the ring must not be larger than 64 TiB";
  if (record_count < 2 || record_count > kMostRecords) {
    return "there must be 2 to 1024 save records";
  }
  if (plan_bytes == 0 || plan_bytes % kCacheLine != 0 || plan_bytes > kLargestRing) {
    return "the plan area must be a positive multiple of 64 bytes, and is " +
           std::to_string(plan_bytes);
  }
  return {};
}

void copy_text(char* field, std::size_t field_chars, const std::string& text) noexcept {
  const std::size_t size = std::min(text.size(), field_chars - 1);
  std::memcpy(field, text.data(), size);
  field[size] = '\0';
}

std::string text_of(const char* field, std::size_t field_chars) {
  return {field, ::strnlen(field, field_chars)};
}

}  // namespace ckptring::ring
