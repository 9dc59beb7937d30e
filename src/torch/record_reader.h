// Moves the bytes of one record into tensors that cannot be filled byte by byte: of another layout
// than the file's, on another device, or several that view the same bytes.
//
// A record is read once and forward, however many tensors view it:
//
//   record   |.....AAAAAAAAAAAA.....BBBBB.......CCCCCC....|
//                  slices: through a window of 16 MiB    gaps: read only for the checksum
#pragma once

#include "plan/byte_source.h"
#include "torch/fill_plan.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ckptring::torch_state {

/// Not thread-safe. Takes at most 16 MiB beside the tensors.
class RecordReader {
 public:
  /// @param verify compute each record's CRC-32 while reading; otherwise only the bytes that
  ///               tensors want are read
  RecordReader(const plan::ByteSource& source, bool verify) : source_(source), verify_(verify) {}

  /// Fills the tensors of one record; marks the ones that were touched. Those on devices are there
  /// when this returns.
  /// @throws Error damaged (the checksum), io (reading), device_failed, out_of_memory (of the host
  ///         or of a device that libtorch copies on), with libtorch's own words
  void fill(RecordFills& record);

  /// The tensor at which `fill` failed; null if it was at none.
  [[nodiscard]] const Fill* failed_at() const noexcept { return at_hand_; }

 private:
  /// A part of a tensor and where its bytes lie in the record.
  struct Slice {
    std::uint64_t begin;  ///< bytes from the record's first one
    std::uint64_t end;
    Fill* fill;
    at::Tensor part;  ///< what is copied to
    FileView view;    ///< what is copied from
  };

  void start(const plan::Record& record);
  void wait_for_devices(std::span<Fill> fills);
  void finish();
  std::vector<Slice> cut(std::span<Fill> fills);
  static void cut_view(Fill& fill, const at::Tensor& part, const FileView& view,
                       std::vector<Slice>& slices);

  void take(std::byte* memory, std::uint64_t size);  ///< reads on from position_
  void skip_to(std::uint64_t begin);
  void load(std::uint64_t begin, std::uint64_t end, std::uint64_t until);
  void copy(const Slice& slice) const;
  std::byte* buffer();

  const plan::ByteSource& source_;
  bool verify_;
  at::Tensor buffer_;  ///< made when first needed

  // The record at hand.
  const plan::Record* record_ = nullptr;
  const Fill* at_hand_ = nullptr;
  std::uint64_t position_ = 0;      ///< everything before it was read or skipped
  std::uint64_t window_begin_ = 0;  ///< buffer_ holds [window_begin_, position_)
  std::uint32_t crc_ = 0;
};

}  // namespace ckptring::torch_state
