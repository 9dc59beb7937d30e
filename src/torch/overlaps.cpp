#include "torch/overlaps.h"

#include "torch/file_layout.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>

namespace ckptring::torch_state {
namespace {

struct Range {
  std::uintptr_t begin;
  std::uintptr_t end;
  const Fill* fill;
  const plan::Record* record;
};

/// Where the record would begin in memory.
std::uintptr_t origin(const Range& range) {
  return range.begin - byte_range(range.fill->view).first;
}

/// Whether the ranges are parts of one row of bytes, in memory as in the file.
bool from_one_place(std::span<const Range> ranges) {
  return std::ranges::all_of(ranges, [&](const Range& range) {
    return range.record == ranges.front().record && origin(range) == origin(ranges.front()) &&
           same_steps(range.fill->target, range.fill->view);
  });
}

Overlap overlap_of(std::span<const Range> ranges) {
  std::map<std::uint64_t, Overlap::Part> parts;  // by their place in the file
  for (const Range& range : ranges) {
    Overlap::Part& part = parts[range.record->data_offset];
    part.record = range.record;
    part.fills.push_back(range.fill);
  }
  Overlap overlap;
  for (auto& [offset, part] : parts) overlap.parts.push_back(std::move(part));
  return overlap;
}

/// What one fill would write: its elements one after the other, as the target has them. Along
/// dimensions where the target has one element, so does the file.
struct Written {
  const Fill* fill;
  at::Tensor values;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;  ///< bytes, of the target

  explicit Written(const Fill& of) : fill(&of), sizes(of.view.sizes) {
    const std::uint64_t item = of.target.itemsize();
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      const std::int64_t stride = of.target.stride(static_cast<std::int64_t>(d));
      if (stride == 0) sizes[d] = 1;
      strides.push_back(stride * static_cast<std::int64_t>(item));
    }
    values = at::empty(sizes, at::TensorOptions().dtype(of.target.scalar_type()));
    values.unsafeGetTensorImpl()->_set_conj(of.target.is_conj());
    values.unsafeGetTensorImpl()->_set_neg(of.target.is_neg());
  }

  [[nodiscard]] Fill to_be_read() const {
    Fill read = *fill;
    read.target = values;
    read.view.sizes = sizes;
    return read;
  }

  /// Calls `visit(address, bytes)` for each element until it returns false; whether it never did.
  template <class Visit>
  bool for_each(Visit&& visit) const {
    const std::size_t item = values.itemsize();
    const auto* bytes = static_cast<const std::byte*>(values.const_data_ptr());
    std::vector<std::int64_t> index(sizes.size());
    std::uintptr_t address = memory_range(fill->target).first;
    for (std::int64_t left = values.numel(); left > 0; --left, bytes += item) {
      if (!visit(address, std::span(bytes, item))) return false;
      for (std::size_t d = index.size(); d-- > 0;) {
        address += static_cast<std::uintptr_t>(strides[d]);
        if (++index[d] < sizes[d]) break;
        address -= static_cast<std::uintptr_t>(strides[d] * sizes[d]);
        index[d] = 0;
      }
    }
    return true;
  }
};

/// The memory of one overlap as it would become.
class Shadow {
 public:
  explicit Shadow(std::span<const Written> all) {
    std::uintptr_t end = 0;
    begin_ = std::numeric_limits<std::uintptr_t>::max();
    for (const Written& written : all) {
      const auto [first, last] = memory_range(written.fill->target);
      begin_ = std::min(begin_, first);
      end = std::max(end, last);
    }
    bytes_.resize(end - begin_);
    written_.resize(end - begin_);
  }

  /// Whether all bytes of it that were written are the same.
  bool agrees(const Written& written) const {
    return written.for_each([&](std::uintptr_t address, std::span<const std::byte> bytes) {
      const std::size_t at = address - begin_;
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (written_[at + i] && bytes_[at + i] != bytes[i]) return false;
      }
      return true;
    });
  }

  void write(const Written& written) {
    written.for_each([&](std::uintptr_t address, std::span<const std::byte> bytes) {
      const std::size_t at = address - begin_;
      std::ranges::copy(bytes, bytes_.begin() + static_cast<std::ptrdiff_t>(at));
      std::fill_n(written_.begin() + static_cast<std::ptrdiff_t>(at), bytes.size(), true);
      return true;
    });
  }

 private:
  std::uintptr_t begin_;
  std::vector<std::byte> bytes_;
  std::vector<bool> written_;
};

}  // namespace

std::vector<Overlap> find_overlaps(const std::vector<RecordFills>& records) {
  std::vector<Range> ranges;
  for (const RecordFills& record : records) {
    for (const Fill& fill : record.fills) {
      if (!has_addresses(fill.target)) continue;
      const auto [begin, end] = memory_range(fill.target);
      ranges.push_back({begin, end, &fill, record.record});
    }
  }
  std::ranges::sort(ranges, {}, &Range::begin);
  std::vector<Overlap> overlaps;
  for (std::size_t first = 0; first < ranges.size();) {
    std::uintptr_t end = ranges[first].end;
    std::size_t next = first + 1;
    for (; next < ranges.size() && ranges[next].begin < end; ++next) {
      end = std::max(end, ranges[next].end);
    }
    const auto row = std::span<const Range>(ranges).subspan(first, next - first);
    if (row.size() > 1 && !from_one_place(row)) overlaps.push_back(overlap_of(row));
    first = next;
  }
  return overlaps;
}

std::optional<std::pair<const Fill*, const Fill*>> contradiction(
    const Overlap& overlap, const std::function<void(RecordFills&)>& read) {
  std::vector<Written> all;
  for (const Overlap::Part& part : overlap.parts) {
    RecordFills reads{part.record, {}};
    for (const Fill* fill : part.fills) reads.fills.push_back(all.emplace_back(*fill).to_be_read());
    read(reads);
  }
  Shadow shadow(all);
  for (const Written& written : all) {
    if (!shadow.agrees(written)) {
      const auto first = std::ranges::find_if(all, [&](const Written& earlier) {
        Shadow alone(all);
        alone.write(earlier);
        return !alone.agrees(written);
      });
      return std::pair(first->fill, written.fill);
    }
    shadow.write(written);
  }
  return std::nullopt;
}

}  // namespace ckptring::torch_state
