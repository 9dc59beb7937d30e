#include "plan/file_plan.h"

#include <ckptring/error.h>

#include <utility>

namespace ckptring::plan {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw Error(ErrorCode::internal, "plan the file", "", what);
}

}  // namespace

FilePlan::FilePlan(std::vector<std::byte> literals, std::vector<Payload> payloads,
                   std::vector<Fixup> fixups, std::uint64_t total_bytes,
                   std::span<const std::uint16_t> padding)
    : literals_(std::move(literals)),
      payloads_(std::move(payloads)),
      fixups_(std::move(fixups)),
      total_bytes_(total_bytes) {
  require(padding.empty() || padding.size() == payloads_.size(),
          "padding is given for some payloads only");
  runs_.reserve(payloads_.size() + 1);
  std::uint64_t end = 0;          // of the previous payload
  std::uint64_t not_literal = 0;  // bytes of payloads and padding so far
  for (std::size_t i = 0; i < payloads_.size(); ++i) {
    const Payload& payload = payloads_[i];
    const std::uint64_t zeros = padding.empty() ? 0 : padding[i];
    require(zeros <= kMaxPadding, "the padding exceeds its limit");
    require(payload.file_offset >= end && payload.file_offset - end >= zeros &&
                payload.size <= total_bytes_ && payload.file_offset <= total_bytes_ - payload.size,
            "payloads overlap, are out of order, or leave the file");
    runs_.push_back({payload.file_offset - zeros, not_literal});
    not_literal += zeros + payload.size;
    end = payload.file_offset + payload.size;
  }
  runs_.push_back({total_bytes_, not_literal});
  require(total_bytes_ - not_literal == literals_.size(),
          "literals and payloads do not add up to the file");
  std::uint64_t previous = 0;
  for (const Fixup& fixup : fixups_) {
    require(fixup.payload < payloads_.size(), "a fix-up of no payload");
    const Payload& payload = payloads_[fixup.payload];
    require(fixup.file_offset >= payload.file_offset + payload.size && total_bytes_ >= 4 &&
                fixup.file_offset <= total_bytes_ - 4 && fixup.file_offset >= previous,
            "a fix-up lies before the end of its payload, or is out of order");
    previous = fixup.file_offset;
  }
}

std::size_t FilePlan::first_payload_ending_after(std::uint64_t offset) const noexcept {
  const auto found = std::partition_point(
      payloads_.begin(), payloads_.end(),
      [offset](const Payload& payload) { return payload.file_offset + payload.size <= offset; });
  return static_cast<std::size_t>(found - payloads_.begin());
}

}  // namespace ckptring::plan
