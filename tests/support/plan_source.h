// A planned file of any size, of which only the literals exist.
#pragma once

#include "plan/byte_source.h"
#include "plan/file_plan.h"

#include <ckptring/error.h>

#include <cstring>
#include <string>

namespace ckptring::test {

/// Payloads read as zeros, and so do all checksums that are only known once they are drained.
/// Refers to the plan.
class PlanSource final : public plan::ByteSource {
 public:
  explicit PlanSource(const plan::FilePlan& plan) : plan_(plan) {}
  [[nodiscard]] std::uint64_t size() const override { return plan_.total_bytes(); }
  [[nodiscard]] const std::string& path() const override { return path_; }
  void read(std::uint64_t offset, std::span<std::byte> bytes) const override {
    if (offset > size() || bytes.size() > size() - offset) {
      throw Error(ErrorCode::damaged, "read", path_, "the file ends before");
    }
    plan_.for_each_piece(offset, bytes.size(), [&](const plan::FilePlan::Piece& piece) {
      std::byte* const to = bytes.data() + (piece.file_offset - offset);
      if (piece.literal != nullptr) {
        std::memcpy(to, piece.literal, piece.size);
      } else {
        std::memset(to, 0, piece.size);
      }
    });
  }

 private:
  const plan::FilePlan& plan_;
  std::string path_ = "/plan.pt";
};

}  // namespace ckptring::test
