#include "torch/overlaps.h"

#include "torch/file_layout.h"

#include <ATen/ops/from_blob.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <tuple>
#include <utility>

namespace ckptring::torch_state {
namespace {

/// What is read to compare is at most so many times what there is of it.
constexpr std::uint64_t kMostRepeated = 64;
/// Or so much: small things may be as odd as they like.
constexpr std::uint64_t kLittle = std::uint64_t{16} << 20;

std::uint64_t saturated_sum(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<std::uint64_t>::max() : sum;
}

/// Where the record would begin in memory.
std::uintptr_t origin(const Fill& fill) {
  return memory_range(fill.target).first - byte_range(fill.view).first;
}

/// A dimension along which a target's elements lie in different places.
struct Dimension {
  std::uint64_t size;
  std::uint64_t stride;  ///< bytes
};

/// By the strides; without those of one element, or one place.
std::vector<Dimension> dimensions(const at::Tensor& target) {
  std::vector<Dimension> found;
  for (std::int64_t d = 0; d < target.dim(); ++d) {
    if (target.size(d) == 1 || target.stride(d) == 0) continue;
    found.push_back({static_cast<std::uint64_t>(target.size(d)),
                     static_cast<std::uint64_t>(target.stride(d)) * target.itemsize()});
  }
  std::ranges::sort(found, {}, &Dimension::stride);
  return found;
}

/// Whether some memory may be that of two elements. Says so of some odd tensors that have none.
bool may_meet_itself(const at::Tensor& target) {
  for (std::int64_t d = 0; d < target.dim(); ++d) {
    if (target.size(d) > 1 && target.stride(d) == 0) return true;
  }
  std::uint64_t reach = target.itemsize();
  for (const Dimension& dimension : dimensions(target)) {
    if (dimension.stride < reach) return true;
    reach += (dimension.size - 1) * dimension.stride;
  }
  return false;
}

/// A tensor's elements as rows of bytes without gaps, all of one length.
struct Rows {
  std::uint64_t length;
  std::vector<Dimension> dimensions;  ///< of the rows
};

Rows rows_of(const at::Tensor& target) {
  Rows rows{.length = target.itemsize(), .dimensions = dimensions(target)};
  auto next = rows.dimensions.begin();
  for (; next != rows.dimensions.end() && next->stride <= rows.length; ++next) {
    rows.length += (next->size - 1) * next->stride;
  }
  rows.dimensions.erase(rows.dimensions.begin(), next);
  return rows;
}

/// Calls `visit(first, bytes)` for rows of bytes that are the target's, `first` counted from the
/// first element, until it returns false. All of them have hardly more than twice as many bytes as
/// the target reaches over, whatever its shape.
template <class Visit>
void for_each_row(const at::Tensor& target, const Visit& visit) {
  const auto [row, rest] = rows_of(target);
  const auto [begin, end] = memory_range(target);
  std::uint64_t rows = 1;  // there are no more elements than fit in 63 bits
  for (const Dimension& dimension : rest) rows *= dimension.size;

  if (rows / 2 <= (end - begin) / row) {
    std::vector<std::uint64_t> index(rest.size());
    std::uint64_t first = 0;
    for (; rows > 0; --rows) {
      if (!visit(first, row)) return;
      for (std::size_t d = 0; d < rest.size(); ++d) {
        first += rest[d].stride;
        if (++index[d] < rest[d].size) break;
        first -= rest[d].stride * rest[d].size;
        index[d] = 0;
      }
    }
    return;
  }
  // Rows lie in the same places again and again, or across each other: each byte once.
  const std::uint64_t item = target.itemsize();
  std::vector<bool> begins((end - begin - row) / item + 1);
  begins[0] = true;
  for (const Dimension& dimension : rest) {
    for (std::uint64_t times = 1; times < dimension.size;) {
      const std::uint64_t more = std::min(times, dimension.size - times);
      const std::uint64_t by = more * (dimension.stride / item);
      for (std::uint64_t i = begins.size(); i-- > by;) {
        if (begins[i - by]) begins[i] = true;
      }
      times += more;
    }
  }
  std::uint64_t first = 0;
  std::uint64_t last = row;  // of what was met and not visited
  for (std::uint64_t i = 1; i < begins.size(); ++i) {
    if (!begins[i]) continue;
    if (i * item > last) {
      if (!visit(first, last - first)) return;
      first = i * item;
    }
    last = i * item + row;
  }
  visit(first, last - first);
}

bool touches(const at::Tensor& target, std::uintptr_t address) {
  const auto [begin, end] = memory_range(target);
  if (address < begin || address >= end) return false;
  bool found = false;
  for_each_row(target, [&, offset = address - begin](std::uint64_t first, std::uint64_t bytes) {
    found = offset >= first && offset - first < bytes;
    return !found;
  });
  return found;
}

/// The memory of one overlap as it would become.
class Shadow {
 public:
  explicit Shadow(const Overlap& overlap) {
    std::uintptr_t end = 0;
    begin_ = std::numeric_limits<std::uintptr_t>::max();
    for (const Overlap::Part& part : overlap.parts) {
      for (const Fill* fill : part.fills) {
        const auto [first, last] = memory_range(fill->target);
        begin_ = std::min(begin_, first);
        end = std::max(end, last);
      }
    }
    size_ = end - begin_;
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }

  void make() {
    bytes_.resize(size_);
    written_.resize(size_);
  }

  /// The address of the first byte that was written before, as another one.
  std::optional<std::uintptr_t> write(std::uintptr_t address, std::span<const std::byte> bytes) {
    const std::size_t at = address - begin_;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (!written_[at + i]) {
        written_[at + i] = true;
        bytes_[at + i] = bytes[i];
      } else if (bytes_[at + i] != bytes[i]) {
        return address + i;
      }
    }
    return std::nullopt;
  }

 private:
  std::uintptr_t begin_;
  std::uint64_t size_;
  std::vector<std::byte> bytes_;
  std::vector<bool> written_;
};

/// What is read at once of a record: the values of one fill, or a row of bytes that several lie in.
class Piece {
 public:
  /// The elements of a fill, one after the other, as its target has them. `fill` stays.
  static Piece of_elements(const Fill& fill) {
    Piece made;
    made.read_ = {.target = {}, .view = fill.view, .key = fill.key};
    FileView& view = made.read_.view;
    view.sizes.clear();
    view.strides.clear();
    made.fills_ = {&fill};
    made.bytes_ = fill.target.itemsize();
    for (std::size_t d = 0; d < fill.view.sizes.size(); ++d) {
      const std::int64_t size = fill.view.sizes[d];
      const std::int64_t stride = fill.target.stride(static_cast<std::int64_t>(d));
      // A file may have any number of dimensions of one element: who steps along the others must
      // not meet them at each element. Of the same element, one.
      if (size == 1 || (stride == 0 && fill.view.strides[d] == 0)) continue;
      view.sizes.push_back(size);
      view.strides.push_back(fill.view.strides[d]);
      made.strides_.push_back(stride * static_cast<std::int64_t>(fill.target.itemsize()));
      made.bytes_ *= static_cast<std::uint64_t>(size);
    }
    return made;
  }

  /// All bytes from the first to the last one of fills that lie in memory as in the file, in one
  /// place.
  static Piece of_bytes(std::vector<const Fill*> fills) {
    std::uint64_t begin = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t end = 0;
    for (const Fill* fill : fills) {
      const auto [first, last] = byte_range(fill->view);
      begin = std::min(begin, first);
      end = std::max(end, last);
    }
    Piece made;
    made.bytes_ = end - begin;
    made.first_ = origin(*fills.front()) + begin;
    made.read_ = {.target = {},
                  .view = {.dtype = plan::DType::uint8,
                           .offset = begin,
                           .sizes = {static_cast<std::int64_t>(end - begin)},
                           .strides = {1}},
                  .key = fills.front()->key};
    made.fills_ = std::move(fills);
    made.sort_fills();
    return made;
  }

  /// Of the same elements for the same memory.
  void add_twin(const Fill& fill) { fills_.push_back(&fill); }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  /// Bytes to be looked at: some of them may be those of many fills.
  [[nodiscard]] std::uint64_t work() const { return saturated_sum(bytes_, more_work_); }
  [[nodiscard]] const std::vector<const Fill*>& fills() const { return fills_; }

  /// To be filled with what the file has. Lives as long as this does, or until `forget`.
  Fill make_read() {
    values_ = std::make_unique_for_overwrite<std::byte[]>(bytes_);
    Fill read = read_;
    const auto type = first_ ? c10::kByte : fills_.front()->target.scalar_type();
    read.target = at::from_blob(values_.get(), read.view.sizes, at::TensorOptions().dtype(type));
    if (!first_) {
      read.target.unsafeGetTensorImpl()->_set_conj(fills_.front()->target.is_conj());
      read.target.unsafeGetTensorImpl()->_set_neg(fills_.front()->target.is_neg());
    }
    return read;
  }

  void forget() { values_.reset(); }

  /// Where it differs from what was written before.
  std::optional<std::uintptr_t> write_to(Shadow& shadow) const {
    return first_ ? write_bytes(shadow) : write_elements(shadow);
  }

 private:
  std::optional<std::uintptr_t> write_bytes(Shadow& shadow) const {
    std::optional<std::uintptr_t> differs;
    const auto write = [&](std::uintptr_t begin, std::uint64_t bytes) {
      differs = shadow.write(begin, std::span(values_.get() + (begin - *first_), bytes));
      return !differs;
    };
    for (const auto& [begin, end] : rows_) {
      if (!write(begin, end - begin)) return differs;
    }
    for (const Fill* fill : scattered_) {
      const std::uintptr_t begin = memory_range(fill->target).first;
      for_each_row(fill->target, [&](std::uint64_t first, std::uint64_t bytes) {
        return write(begin + first, bytes);
      });
      if (differs) break;
    }
    return differs;
  }

  std::optional<std::uintptr_t> write_elements(Shadow& shadow) const {
    const std::vector<std::int64_t>& sizes = read_.view.sizes;
    const std::size_t item = fills_.front()->target.itemsize();
    std::vector<std::int64_t> index(sizes.size());
    std::uintptr_t address = memory_range(fills_.front()->target).first;
    for (std::uint64_t done = 0; done < bytes_; done += item) {
      if (const auto differs = shadow.write(address, std::span(values_.get() + done, item))) {
        return differs;
      }
      for (std::size_t d = index.size(); d-- > 0;) {
        address += static_cast<std::uintptr_t>(strides_[d]);
        if (++index[d] < sizes[d]) break;
        address -= static_cast<std::uintptr_t>(strides_[d] * sizes[d]);
        index[d] = 0;
      }
    }
    return std::nullopt;
  }

  /// Each byte of those that are one row is looked at once, and of others each tensor.
  void sort_fills() {
    using Shape = std::tuple<std::uintptr_t, std::size_t, std::vector<std::int64_t>,
                             std::vector<std::int64_t>>;
    std::set<Shape> met;
    std::vector<std::pair<std::uintptr_t, std::uintptr_t>> rows;
    for (const Fill* fill : fills_) {
      const at::Tensor& target = fill->target;
      const auto [begin, end] = memory_range(target);
      if (rows_of(target).dimensions.empty()) {
        rows.emplace_back(begin, end);
      } else if (met.emplace(begin, target.itemsize(), target.sizes().vec(), target.strides().vec())
                     .second) {
        scattered_.push_back(fill);
        more_work_ = saturated_sum(more_work_, end - begin);
      }
    }
    std::ranges::sort(rows);
    for (const auto& [begin, end] : rows) {
      if (!rows_.empty() && begin <= rows_.back().second) {
        rows_.back().second = std::max(rows_.back().second, end);
      } else {
        rows_.emplace_back(begin, end);
      }
    }
  }

  Fill read_;  ///< without its target
  std::vector<const Fill*> fills_;
  std::uint64_t bytes_ = 0;
  // Of bytes: the address of the first one; which of them are wanted, row by row and by others.
  std::optional<std::uintptr_t> first_;
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> rows_;
  std::vector<const Fill*> scattered_;
  std::uint64_t more_work_ = 0;
  std::vector<std::int64_t> strides_;  ///< of elements: bytes, in memory
  std::unique_ptr<std::byte[]> values_;
};

/// In the order of the fills. What the state has under several keys is read once.
std::vector<Piece> pieces_of(const Overlap::Part& part) {
  std::map<std::uintptr_t, std::vector<const Fill*>> rows;  // by their origin
  for (const Fill* fill : part.fills) {
    if (same_steps(fill->target, fill->view)) rows[origin(*fill)].push_back(fill);
  }
  // Where fills lie far apart, their elements are less than what they lie in.
  std::erase_if(rows, [](const auto& row) {
    std::uint64_t elements = 0;
    for (const Fill* fill : row.second) {
      elements = saturated_sum(elements, Piece::of_elements(*fill).bytes());
    }
    const Piece whole = Piece::of_bytes(row.second);
    return elements < whole.bytes() / 2 && elements < whole.work();
  });

  using Place = std::tuple<std::uint64_t, std::uintptr_t, std::vector<std::int64_t>,
                           std::vector<std::int64_t>, std::vector<std::int64_t>, c10::ScalarType,
                           bool, bool, bool, bool>;
  std::map<Place, std::size_t> singles;
  std::vector<Piece> pieces;
  for (const Fill* fill : part.fills) {
    const at::Tensor& target = fill->target;
    const FileView& view = fill->view;
    if (same_steps(target, view)) {
      const auto row = rows.find(origin(*fill));
      if (row != rows.end()) {
        if (!row->second.empty()) pieces.push_back(Piece::of_bytes(std::move(row->second)));
        row->second.clear();
        continue;
      }
    }
    const auto [found, is_new] =
        singles.try_emplace(Place{view.offset, memory_range(target).first, view.sizes, view.strides,
                                  target.strides().vec(), target.scalar_type(), view.conj, view.neg,
                                  target.is_conj(), target.is_neg()},
                            pieces.size());
    if (is_new) {
      pieces.push_back(Piece::of_elements(*fill));
    } else {
      pieces[found->second].add_twin(*fill);
    }
  }
  return pieces;
}

struct Range {
  std::uintptr_t begin;
  std::uintptr_t end;
  const Fill* fill;
  const plan::Record* record;
};

/// Whether the ranges are parts of one row of bytes, in memory as in the file.
bool from_one_place(std::span<const Range> ranges) {
  return std::ranges::all_of(ranges, [&](const Range& range) {
    return range.record == ranges.front().record &&
           origin(*range.fill) == origin(*ranges.front().fill) &&
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

/// A fill to blame if there were too much to read. There is no end to how often a shape may name
/// the same bytes.
const Fill* too_much(const Overlap& overlap, const std::vector<std::vector<Piece>>& pieces,
                     std::uint64_t memory) {
  std::uint64_t all = memory;
  for (const Overlap::Part& part : overlap.parts) all = saturated_sum(all, part.record->size);
  std::uint64_t wanted = 0;
  const Piece* largest = nullptr;
  for (const std::vector<Piece>& of_part : pieces) {
    for (const Piece& piece : of_part) {
      wanted = saturated_sum(wanted, piece.work());
      if (largest == nullptr || piece.work() > largest->work()) largest = &piece;
    }
  }
  if (wanted <= kLittle || wanted / kMostRepeated <= all) return nullptr;
  return largest->fills().front();
}

/// Which two fills it is that differ at `address`.
Contradiction contradiction_at(std::uintptr_t address, const std::vector<const Piece*>& before,
                               const Piece& piece) {
  const auto at_address = [&](const Fill* fill) { return touches(fill->target, address); };
  const auto fill = std::ranges::find_if(piece.fills(), at_address);
  for (const Piece* earlier : before) {
    const auto found = std::ranges::find_if(earlier->fills(), at_address);
    if (found != earlier->fills().end()) return {*found, *fill};
  }
  return {*fill, *fill};
}

}  // namespace

std::string Contradiction::words(const std::string& source, const std::string& earlier_key) const {
  if (earlier == nullptr) {
    return fmt::format(
        "it has more elements in the same memory than can be compared with what {} has for them",
        source);
  }
  if (earlier == fill) {
    return fmt::format(
        "some of its elements lie in the same memory, for which {} has several values", source);
  }
  return fmt::format("it lies in the same memory as {}, for which {} has other values", earlier_key,
                     source);
}

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
    if ((row.size() > 1 || may_meet_itself(row.front().fill->target)) && !from_one_place(row)) {
      overlaps.push_back(overlap_of(row));
    }
    first = next;
  }
  return overlaps;
}

std::optional<Contradiction> contradiction(const Overlap& overlap,
                                           const std::function<void(RecordFills&)>& read) {
  std::vector<std::vector<Piece>> pieces;
  for (const Overlap::Part& part : overlap.parts) pieces.push_back(pieces_of(part));
  Shadow shadow(overlap);
  if (const Fill* fill = too_much(overlap, pieces, shadow.size())) {
    return Contradiction{nullptr, fill};
  }
  shadow.make();
  std::vector<const Piece*> written;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const plan::Record* const record = overlap.parts[p].record;
    // As many at once as take no more than the record.
    for (auto next = pieces[p].begin(); next != pieces[p].end();) {
      const auto first = next;
      RecordFills reads{record, {}};
      std::uint64_t bytes = 0;
      for (; next != pieces[p].end(); ++next) {
        bytes = saturated_sum(bytes, next->bytes());
        if (next != first && bytes > std::max(record->size, kLittle)) break;
        reads.fills.push_back(next->make_read());
      }
      read(reads);
      for (auto piece = first; piece != next; ++piece) {
        if (const auto address = piece->write_to(shadow)) {
          return contradiction_at(*address, written, *piece);
        }
        piece->forget();
        written.push_back(&*piece);
      }
    }
  }
  return std::nullopt;
}

}  // namespace ckptring::torch_state
