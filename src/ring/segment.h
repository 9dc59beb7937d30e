// The shared segment: one memory file, mapped in the trainer and in the checkpoint process.
#pragma once

#include "os/uninherited_fd.h"
#include "ring/layout.h"
#include "ring/shared_mapping.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckptring::ring {

/// Typed access to the sections. Copyable and cheap: it points into a mapping that the owner
/// (Segment, or a test's own memory) keeps alive.
class SegmentView {
 public:
  /// @param memory at least geometry.total_bytes(), 64-byte aligned, header already written
  explicit SegmentView(std::byte* memory) noexcept;
  /// With a geometry that was checked, whatever the header says by now.
  SegmentView(std::byte* memory, const Geometry& geometry) noexcept;

  [[nodiscard]] const Geometry& geometry() const noexcept { return geometry_; }
  [[nodiscard]] const Settings& settings() const noexcept { return header_->settings; }
  [[nodiscard]] ProducerLine& producer() const noexcept { return *producer_; }
  [[nodiscard]] SupervisorLine& supervisor() const noexcept { return *supervisor_; }
  [[nodiscard]] ConsumerLine& consumer() const noexcept { return *consumer_; }
  [[nodiscard]] Slot& slot(std::uint64_t position) const noexcept {
    return slots_[position % geometry_.slot_count];
  }
  [[nodiscard]] Record& record(std::uint64_t save) const noexcept {
    return records_[save % geometry_.record_count];
  }
  /// The memory of the block at a position: block_bytes bytes, 4096-aligned.
  [[nodiscard]] std::span<std::byte> block(std::uint64_t position) const noexcept {
    return {blocks_ + position % geometry_.slot_count * geometry_.block_bytes,
            static_cast<std::size_t>(geometry_.block_bytes)};
  }
  [[nodiscard]] std::span<std::byte> blocks() const noexcept {
    return {blocks_, static_cast<std::size_t>(geometry_.slot_count * geometry_.block_bytes)};
  }
  [[nodiscard]] std::span<std::byte> plan_area() const noexcept {
    return {plan_, static_cast<std::size_t>(geometry_.plan_bytes)};
  }

  /// Writes header and initial state into zeroed memory.
  static void format(std::byte* memory, const Geometry& geometry,
                     const Settings& settings) noexcept;

 private:
  const Header* header_;
  Geometry geometry_;  ///< a copy: the other process must not be able to move our bounds
  ProducerLine* producer_;
  SupervisorLine* supervisor_;
  ConsumerLine* consumer_;
  Slot* slots_;
  Record* records_;
  std::byte* plan_;
  std::byte* blocks_;
};

class Segment {
 public:
  /// Makes and formats a new segment.
  /// @throws Error invalid_argument, out_of_memory
  static Segment create(const Geometry& geometry, const Settings& settings);

  /// Maps a segment that another process made.
  /// @throws Error process_failed if it is none, of another version, or of another size
  static Segment attach(os::UniqueFd ring);

  [[nodiscard]] const SegmentView& view() const noexcept { return view_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Segment(os::UninheritedFd fd, SharedMapping mapping, const Geometry& geometry);
  os::UninheritedFd fd_;
  SharedMapping mapping_;
  SegmentView view_;
};

/// The bells of a segment, one eventfd per waiter. Borrowed descriptors.
struct Bells {
  int data;    ///< the consumer waits on it
  int space;   ///< the producer waits on it
  int result;  ///< the supervisor waits on it
};

}  // namespace ckptring::ring
