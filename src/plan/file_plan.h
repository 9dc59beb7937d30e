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
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ckptring::plan {

struct Payload {
  std::uint64_t file_offset;  ///< of its first byte
  std::uint64_t size;         ///< bytes; a builder never makes an empty one
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
    const std::byte* literal;      ///< null for a payload; else valid as long as the plan
    std::uint32_t payload;         ///< index, if `literal` is null
    std::uint64_t payload_offset;  ///< within the payload
  };

  /// The most zeros that may precede a payload.
  static constexpr std::uint64_t kMaxPadding = 4095;

  /// @param literals bytes of all literal runs, concatenated in file order
  /// @param payloads in file order, not overlapping; everything else up to `total_bytes` is
  ///                 literal, so literals.size() + sum of sizes (+ sum of padding) == total_bytes
  /// @param fixups   in file order
  /// @param padding  zero bytes that directly precede each payload and are not in `literals`; one
  ///                 number per payload, or empty for none at all. Alignment makes nearly a page
  ///                 of them for every payload, which need not be stored
  /// @throws Error internal if these do not fit together
  FilePlan(std::vector<std::byte> literals, std::vector<Payload> payloads,
           std::vector<Fixup> fixups, std::uint64_t total_bytes,
           std::span<const std::uint16_t> padding = {});

  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }
  [[nodiscard]] std::span<const Payload> payloads() const noexcept { return payloads_; }
  [[nodiscard]] std::span<const Fixup> fixups() const noexcept { return fixups_; }

  /// Calls `visit(Piece)` for the pieces that make up [offset, offset + size), in file order.
  /// The range must lie in the file.
  template <class Visit>
  void for_each_piece(std::uint64_t offset, std::uint64_t size, Visit&& visit) const {
    std::uint64_t at = offset;
    const std::uint64_t end = offset + size;
    std::size_t next = first_payload_ending_after(at);
    while (at < end) {
      // Before payload `next`: literals up to zeros_begin, zeros up to the payload.
      const Run& run = runs_[next];
      if (at < run.zeros_begin) {
        const std::uint64_t stop = std::min(end, run.zeros_begin);
        visit(Piece{at, stop - at, literals_.data() + (at - run.not_literal_before), 0, 0});
        at = stop;
      } else if (next == payloads_.size()) {
        return;
      } else if (const Payload& payload = payloads_[next]; at < payload.file_offset) {
        const std::uint64_t stop = std::min(end, payload.file_offset);
        visit(Piece{at, stop - at, kZeros.data(), 0, 0});
        at = stop;
      } else {
        const std::uint64_t stop = std::min(end, payload.file_offset + payload.size);
        if (stop > at) {
          visit(Piece{at, stop - at, nullptr, static_cast<std::uint32_t>(next),
                      at - payload.file_offset});
          at = stop;
        }
        ++next;
      }
    }
  }

 private:
  /// The literals between two payloads.
  struct Run {
    std::uint64_t zeros_begin;         ///< file offset where they end
    std::uint64_t not_literal_before;  ///< payload and padding bytes that precede them
  };

  static constexpr std::array<std::byte, kMaxPadding> kZeros{};

  [[nodiscard]] std::size_t first_payload_ending_after(std::uint64_t offset) const noexcept;

  std::vector<std::byte> literals_;
  std::vector<Payload> payloads_;
  std::vector<Run> runs_;  ///< one more than payloads
  std::vector<Fixup> fixups_;
  std::uint64_t total_bytes_;
};

}  // namespace ckptring::plan
