// Some cache lines of each tensor in host memory, read when `save` was called, to be compared with
// what was staged: writes that raise no version (through a raw pointer, or by libtorch's own
// batch_norm) show here, where they reach a line that is looked at.
//
// The staged bytes are compared, not the tensor: once its bytes are in the ring it may change, if
// a fence or `staged` says so, and that is no fault.
#pragma once

#include "plan/file_plan.h"
#include "stage/source.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ckptring::stage {

class Samples {
 public:
  Samples() = default;
  /// Reads them now: up to 8 lines of each payload from host memory, evenly spread, fewer where
  /// there are many payloads, and one of each at least.
  /// @param left_out  by source: those that are not looked at, because they may change
  /// @param seed      which lines; another one for each save, so that in time all are looked at
  Samples(const plan::FilePlan& plan, std::span<const Source> sources,
          const std::vector<bool>& left_out, std::uint64_t seed);

  /// The source of the first sample that differs from what was staged of it, if any does.
  /// @param staged  the bytes of the file from `file_offset` on; of a line that goes on behind
  ///                their end the rest is not looked at
  [[nodiscard]] std::optional<std::uint32_t> first_changed(std::uint64_t file_offset,
                                                           std::span<const std::byte> staged) const;

  [[nodiscard]] std::size_t count() const noexcept { return samples_.size(); }

 private:
  static constexpr std::uint64_t kLine = 64;
  struct Sample {
    std::uint64_t file_offset;
    std::uint32_t source;
    std::uint32_t size;  ///< a line, or what the payload has left of it
    std::array<std::byte, kLine> bytes;
  };
  std::vector<Sample> samples_;  ///< in file order
};

}  // namespace ckptring::stage
