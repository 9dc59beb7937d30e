#include "torch/record_reader.h"

#include "base/align.h"
#include "base/checksum.h"
#include "torch/dtype_map.h"

#include <ckptring/error.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
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

std::uint64_t stride_bytes(const FileView& view, std::size_t dimension) {
  return static_cast<std::uint64_t>(view.strides[dimension]) * plan::element_size(view.dtype);
}

/// First byte of a view, and the one behind its last. Bounds were checked with the record.
std::pair<std::uint64_t, std::uint64_t> byte_range(const FileView& view) {
  const std::uint64_t item = plan::element_size(view.dtype);
  std::uint64_t last = view.offset * item;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    last += static_cast<std::uint64_t>(view.sizes[d] - 1) * stride_bytes(view, d);
  }
  return {view.offset * item, last + item};
}

/// Whether the elements lie in the target's memory as in the file, without gaps.
bool same_layout(const at::Tensor& target, const FileView& view) {
  if (!target.device().is_cpu() || !target.is_non_overlapping_and_dense()) return false;
  if (target.is_conj() != view.conj || target.is_neg() != view.neg) return false;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    if (view.sizes[d] > 1 && view.strides[d] != target.stride(static_cast<std::int64_t>(d))) {
      return false;
    }
  }
  return true;
}

std::byte* memory_of(const at::Tensor& target) {
  return static_cast<std::byte*>(target.storage().mutable_data()) +
         static_cast<std::uint64_t>(target.storage_offset()) * target.itemsize();
}

/// An integer type of the same size: copying is moving bits, whatever they mean.
c10::ScalarType carrier(std::uint32_t element_size) {
  switch (element_size) {
    case 1:
      return c10::kByte;
    case 2:
      return c10::kShort;
    case 4:
      return c10::kInt;
    case 8:
      return c10::kLong;
    default:
      return c10::kComplexDouble;
  }
}

void touch(Fill& fill) {
  if (std::exchange(fill.touched, true)) return;
  // Inference tensors have no version counter.
  if (!fill.target.is_inference()) fill.target.unsafeGetTensorImpl()->bump_version();
}

bool resolves_bits(const at::Tensor& target, const FileView& view) {
  return target.is_conj() != view.conj || target.is_neg() != view.neg;
}

/// What the slices of a fill are copied to, without autograd: the target itself where values have
/// to be conjugated or negated on the way, else its memory as integers. The target repeats
/// elements along dimensions of stride 0, and so does the file: one of each is enough.
std::pair<at::Tensor, FileView> copy_ends(const Fill& fill) {
  FileView view = fill.view;
  at::Tensor part = fill.target;
  if (!resolves_bits(part, view)) {
    part = view_of_storage(part.storage(), carrier(plan::element_size(view.dtype)),
                           part.storage_offset(), part.sizes(), part.strides());
  }
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
  const std::vector<Slice> slices = cut(record.fills);
  // Reading ahead pays where every byte is read anyway; it must not swallow a direct read.
  std::vector<std::uint64_t> until(slices.size());
  std::uint64_t limit = record_->size;
  for (std::size_t i = slices.size(); i-- > 0;) {
    if (slices[i].direct) limit = slices[i].begin;
    until[i] = limit;
  }
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const Slice& slice = slices[i];
    if (slice.direct) {
      skip_to(slice.begin);
      touch(*slice.fill);
      take(memory_of(slice.fill->target), slice.end - slice.begin);
      window_begin_ = position_;
    } else {
      load(slice.begin, slice.end, verify_ ? until[i] : slice.end);
      touch(*slice.fill);
      copy(slice);
    }
  }
  finish();
}

void RecordReader::check(const plan::Record& record) {
  const bool verify = std::exchange(verify_, true);
  start(record);
  finish();
  verify_ = verify;
}

void RecordReader::start(const plan::Record& record) {
  record_ = &record;
  position_ = 0;
  window_begin_ = 0;
  crc_ = 0;
}

void RecordReader::finish() {
  if (!verify_) return;
  skip_to(record_->size);
  if (crc_ == record_->crc32) return;
  throw Error(ErrorCode::damaged, "check record", record_->name,
              fmt::format("record {} has CRC-32 {:08x}, its index says {:08x}", record_->name, crc_,
                          record_->crc32));
}

std::vector<RecordReader::Slice> RecordReader::cut(std::span<Fill> fills) const {
  struct Range {
    std::uint64_t begin;
    std::uint64_t end;
    Fill* fill;
  };
  std::vector<Range> ranges;
  ranges.reserve(fills.size());
  for (Fill& fill : fills) {
    const auto [begin, end] = byte_range(fill.view);
    ranges.push_back({begin, end, &fill});
  }
  std::ranges::sort(ranges, {}, &Range::begin);

  std::vector<Slice> slices;
  std::uint64_t reached = 0;  // of all ranges so far
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const Range& range = ranges[i];
    const bool alone =
        range.begin >= reached && (i + 1 == ranges.size() || ranges[i + 1].begin >= range.end);
    reached = std::max(reached, range.end);
    if (alone && same_layout(range.fill->target, range.fill->view)) {
      slices.push_back({range.begin, range.end, range.fill, true, {}, {}});
    } else {
      const auto [part, view] = copy_ends(*range.fill);
      cut_view(*range.fill, part, view, slices);
    }
  }
  std::ranges::stable_sort(slices, {}, &Slice::begin);
  return slices;
}

void RecordReader::cut_view(Fill& fill, const at::Tensor& part, const FileView& view,
                            std::vector<Slice>& slices) {
  const auto [begin, end] = byte_range(view);
  if (end - begin <= kSlice) {
    slices.push_back({begin, end, &fill, false, part, view});
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
    buffer_ =
        at::empty({static_cast<std::int64_t>(kWindow)}, at::TensorOptions().dtype(c10::kByte));
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
  if (window_begin_ % kAlignment != 0) {
    // Behind a direct read: move what follows to where its alignment is right.
    window_begin_ = window_begin_ / kAlignment * kAlignment;
  } else if (first > window_begin_) {
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
  slice.part.copy_(source);
}

}  // namespace ckptring::torch_state
