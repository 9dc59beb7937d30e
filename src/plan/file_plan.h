// FilePlan: every byte of a checkpoint file, decided before the first one is copied.
//
//   offset 0                                                              total_bytes
//   | literal | payload 0 | literal | payload 1 | ... | literal (central directory) |
//
// Literal bytes are owned by the plan. A payload is a range that is filled from a source (a
// tensor storage) which the plan knows only by index. Fix-ups are the four-byte little-endian
// CRC-32 fields inside literals whose value is known only once the payload was read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ckptring::plan {

struct Payload {
  std::uint64_t file_offset;  ///< of its first byte
  std::uint64_t size;         ///< bytes; may be 0
  std::uint32_t source;       ///< index given by the builder's add_storage
};

/// A CRC-32 field. Always lies behind the end of its payload.
struct Fixup {
  std::uint64_t file_offset;
  std::uint32_t payload;  ///< index into payloads()
};

class FilePlan {
 public:
  /// A run of bytes of the file that comes from one place.
  struct Piece {
    std::uint64_t file_offset;
    std::uint64_t size;
    const std::byte* literal;      ///< null for a payload
    std::uint32_t payload;         ///< index, if `literal` is null
    std::uint64_t payload_offset;  ///< within the payload
  };

  /// @param literals bytes of all literal runs, concatenated in file order
  /// @param payloads in file order, not overlapping; everything else up to `total_bytes` is
  ///                 literal, so literals.size() + sum of sizes == total_bytes
  /// @param fixups   in file order
  FilePlan(std::vector<std::byte> literals, std::vector<Payload> payloads,
           std::vector<Fixup> fixups, std::uint64_t total_bytes);

  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }
  [[nodiscard]] std::span<const Payload> payloads() const noexcept { return payloads_; }
  [[nodiscard]] std::span<const Fixup> fixups() const noexcept { return fixups_; }

  /// Calls `visit(Piece)` for the pieces that make up [offset, offset + size), in file order.
  template <class Visit>
  void for_each_piece(std::uint64_t offset, std::uint64_t size, Visit&& visit) const {
    std::uint64_t at = offset;
    const std::uint64_t end = offset + size;
    std::size_t next = first_payload_ending_after(at);
    while (at < end) {
      if (next < payloads_.size() && payloads_[next].file_offset <= at) {
        const Payload& payload = payloads_[next];
        const std::uint64_t stop = std::min(end, payload.file_offset + payload.size);
        if (stop > at) {
          visit(Piece{at, stop - at, nullptr, static_cast<std::uint32_t>(next),
                      at - payload.file_offset});
          at = stop;
        }
        ++next;
        continue;
      }
      const std::uint64_t stop =
          next < payloads_.size() ? std::min(end, payloads_[next].file_offset) : end;
      visit(Piece{at, stop - at, literals_.data() + (at - payload_bytes_before_[next]), 0, 0});
      at = stop;
    }
  }

 private:
  [[nodiscard]] std::size_t first_payload_ending_after(std::uint64_t offset) const noexcept;

  std::vector<std::byte> literals_;
  std::vector<Payload> payloads_;
  std::vector<std::uint64_t> payload_bytes_before_;  ///< prefix sums, one more than payloads
  std::vector<Fixup> fixups_;
  std::uint64_t total_bytes_;
};

}  // namespace ckptring::plan
