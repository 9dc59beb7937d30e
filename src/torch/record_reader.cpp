#include "torch/record_reader.h"

#include "base/checksum.h"
#include "torch/bare_tensor.h"
#include "torch/current_stream.h"
#include "torch/dtype_map.h"
#include "torch/file_layout.h"
#include "torch/libtorch_error.h"

#include <ckptring/error.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace ckptring::torch_state {
namespace {

constexpr std::uint64_t kWindow = 16ull << 20;
/// Slices of a view that is copied through the window span at most this.
constexpr std::uint64_t kSlice = 8ull << 20;
/// Bytes read at a time, so that the checksum finds them in the cache.
constexpr std::uint64_t kStep = 1ull << 20;
/// The window begins at multiples of this, so that elements are aligned in memory as in the file.
constexpr std::uint64_t kAlignment = 64;

bool resolves_bits(const at::Tensor& target, const FileView& view) {
  return target.is_conj() != view.conj || target.is_neg() != view.neg;
}

/// What the slices of a fill are copied to: the target's memory, as values where these have to be
/// conjugated or negated on the way, else as integers. The target repeats elements along
/// dimensions of stride 0, and so does the file: one of each is enough.
std::pair<at::Tensor, FileView> copy_ends(const Fill& fill) {
  FileView view = fill.view;
  at::Tensor part =
      resolves_bits(fill.target, view) ? values_of(fill.target) : bits_of(fill.target);
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    const auto dimension = static_cast<std::int64_t>(d);
    if (view.sizes[d] > 1 && part.stride(dimension) == 0) {
      part = part.narrow(dimension, 0, 1);
      view.sizes[d] = 1;
    }
  }
  return {part, std::move(view)};
}

}  // namespace

void RecordReader::fill(RecordFills& record) {
  const at::NoGradGuard no_grad;
  start(*record.record);
  for (const Slice& slice : cut(record.fills)) {
    at_hand_ = slice.fill;
    load(slice.begin, slice.end, verify_ ? record_->size : slice.end);
    slice.fill->touch();
    copy(slice);
  }
  wait_for_devices(record.fills);
  finish();
}

void RecordReader::start(const plan::Record& record) {
  record_ = &record;
  at_hand_ = nullptr;
  position_ = 0;
  window_begin_ = 0;
  crc_ = 0;
}

/// What libtorch has copied to a device may still be on its way there, and fail.
void RecordReader::wait_for_devices(std::span<Fill> fills) {
  std::set<c10::DeviceIndex> waited_for;
  for (Fill& fill : fills) {
    if (!fill.target.is_cuda()) continue;
    at_hand_ = &fill;
    const c10::DeviceIndex device = fill.target.device().index();
    if (waited_for.insert(device).second) wait_for_current_stream(device);
  }
  at_hand_ = nullptr;
}

void RecordReader::finish() {
  if (!verify_) return;
  skip_to(record_->size);
  record_->check(crc_);
}

std::vector<RecordReader::Slice> RecordReader::cut(std::span<Fill> fills) {
  std::vector<Slice> slices;
  for (Fill& fill : fills) {
    at_hand_ = &fill;
    const c10::Device device = fill.target.device();
    through_libtorch(device, copy_to(device), [&] {
      const auto [part, view] = copy_ends(fill);
      cut_view(fill, part, view, slices);
    });
  }
  std::ranges::stable_sort(slices, {}, &Slice::begin);
  return slices;
}

void RecordReader::cut_view(Fill& fill, const at::Tensor& part, const FileView& view,
                            std::vector<Slice>& slices) {
  const auto [begin, end] = byte_range(view);
  if (end - begin <= kSlice) {
    slices.push_back({begin, end, &fill, part, view});
    return;
  }
  // Cut where the file's steps are longest: the pieces then lie one behind the other.
  std::size_t longest = 0;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    if (view.sizes[longest] == 1 ||
        (view.sizes[d] > 1 && view.strides[d] > view.strides[longest])) {
      longest = d;
    }
  }
  const std::uint64_t step = stride_bytes(view, longest);
  const std::int64_t size = view.sizes[longest];
  const std::uint64_t inner = end - begin - static_cast<std::uint64_t>(size - 1) * step;
  const std::int64_t count =
      inner < kSlice ? static_cast<std::int64_t>((kSlice - inner) / step) + 1 : 1;
  for (std::int64_t first = 0; first < size; first += count) {
    FileView piece = view;
    piece.offset += static_cast<std::uint64_t>(first * view.strides[longest]);
    piece.sizes[longest] = std::min(count, size - first);
    cut_view(fill, part.narrow(static_cast<std::int64_t>(longest), first, piece.sizes[longest]),
             piece, slices);
  }
}

std::byte* RecordReader::buffer() {
  if (!buffer_.defined()) {
    buffer_ = through_libtorch(c10::kCPU, fmt::format("make a window of {} bytes", kWindow), [] {
      return at::empty({static_cast<std::int64_t>(kWindow)}, at::TensorOptions().dtype(c10::kByte));
    });
  }
  return static_cast<std::byte*>(buffer_.mutable_data_ptr());
}

void RecordReader::take(std::byte* memory, std::uint64_t size) {
  while (size > 0) {
    const std::span<std::byte> bytes(memory, std::min(size, kStep));
    source_.read(record_->data_offset + position_, bytes);
    if (verify_) crc_ = base::crc32(bytes, crc_);
    position_ += bytes.size();
    memory += bytes.size();
    size -= bytes.size();
  }
}

void RecordReader::skip_to(std::uint64_t begin) {
  if (verify_) {
    while (position_ < begin) take(buffer(), std::min(begin - position_, kStep));
  }
  position_ = std::max(position_, begin);
  window_begin_ = position_;
}

/// Makes [begin, end) available in the window; reads ahead as far as `until` and the window allow.
void RecordReader::load(std::uint64_t begin, std::uint64_t end, std::uint64_t until) {
  if (end <= position_ && begin >= window_begin_) return;
  const std::uint64_t first = begin / kAlignment * kAlignment;
  if (first >= position_) skip_to(first);
  if (first > window_begin_) {
    // Slices come in order, so nothing before this one is needed any more.
    std::memmove(buffer(), buffer() + (first - window_begin_), position_ - first);
    window_begin_ = first;
  }
  const std::uint64_t target = std::max(end, std::min(until, window_begin_ + kWindow));
  take(buffer() + (position_ - window_begin_), target - position_);
}

void RecordReader::copy(const Slice& slice) const {
  const bool resolves = resolves_bits(slice.fill->target, slice.view);
  const c10::ScalarType type =
      resolves ? to_scalar_type(slice.view.dtype) : carrier(plan::element_size(slice.view.dtype));
  std::byte* memory =
      static_cast<std::byte*>(buffer_.mutable_data_ptr()) + (slice.begin - window_begin_);
  at::Tensor source =
      at::from_blob(memory, slice.view.sizes, slice.view.strides, at::TensorOptions().dtype(type));
  if (resolves && slice.view.conj) source.unsafeGetTensorImpl()->_set_conj(true);
  if (resolves && slice.view.neg) source.unsafeGetTensorImpl()->_set_neg(true);
  const c10::Device device = slice.part.device();
  through_libtorch(device, copy_to(device), [&] { slice.part.copy_(source); });
}

}  // namespace ckptring::torch_state
