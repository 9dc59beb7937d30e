// The checkpoint process's end of the ring. Exactly one Consumer is alive for a segment: a new
// process is started only after the old one is gone.
//
// It keeps nothing that cannot be found again in shared memory: a new Consumer goes on from the
// tail.
#pragma once

#include "os/poll.h"
#include "ring/doorbell.h"
#include "ring/orders.h"
#include "ring/segment.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace ckptring::ring {

/// What the trainer wants of a save.
struct IntentView {
  Intent intent;
  std::uint64_t end_position;  ///< valid if sealed or aborted
};

/// A published block. Its memory stays as it is until complete or release_through.
struct TakenBlock {
  std::uint64_t position;
  std::uint64_t file_offset;
  std::uint64_t size;           ///< bytes that belong to the file
  std::span<std::byte> memory;  ///< the whole block
  bool voided;
};

template <class Orders>
class BasicConsumer {
 public:
  BasicConsumer(SegmentView segment, Bells bells);
  BasicConsumer(const BasicConsumer&) = delete;
  BasicConsumer& operator=(const BasicConsumer&) = delete;

  /// Clears this side's own flag, rings the trainer's bells once, reports as started.
  void start(std::uint32_t incarnation) noexcept;

  /// The number of the oldest save that is announced and not finished; nothing if there is none.
  /// A save is finished once it is sealed or aborted, has a terminal outcome, and its blocks are
  /// let go; from then on its record, tables and blocks belong to the producer again.
  [[nodiscard]] std::optional<std::uint64_t> next_save() noexcept;

  [[nodiscard]] const Record& record(std::uint64_t save) const noexcept {
    return segment_.record(save);
  }
  [[nodiscard]] std::span<std::byte> plan_of(std::uint64_t save) const;
  [[nodiscard]] IntentView intent(std::uint64_t save) const noexcept;
  [[nodiscard]] Progress progress(std::uint64_t save) const noexcept;
  [[nodiscard]] std::uint64_t tail() const noexcept;
  [[nodiscard]] bool shutdown_requested() const noexcept;

  /// The next published block of this save that was not taken yet, in order.
  std::optional<TakenBlock> try_take(std::uint64_t save) noexcept;

  /// The block's bytes are on disk. Any order; the tail moves over completed ones.
  void complete(std::uint64_t position);
  /// Nothing below `end` will be looked at any more.
  void release_through(std::uint64_t end) noexcept;

  /// Fills in the outcome's fields; call before the set_progress that makes them visible.
  [[nodiscard]] Outcome& outcome(std::uint64_t save) const noexcept {
    return segment_.record(save).outcome;
  }
  void set_progress(std::uint64_t save, Progress progress) noexcept;
  /// Resets the time-outs' clock.
  void note_step() noexcept;

  /// Sleeps until `moved()` holds (it must use this class's queries), one of `others` is ready,
  /// or the deadline passed.
  template <class Moved>
  bool sleep(Moved&& moved, std::span<os::Waitable> others, os::Deadline deadline) {
    return sleep_until(segment_.consumer().data_sleeping, bells_.data, std::forward<Moved>(moved),
                       others, deadline);
  }
  /// Whether try_take(save) would return a block.
  [[nodiscard]] bool can_take(std::uint64_t save) const noexcept;

 private:
  [[nodiscard]] bool is_finished(std::uint64_t save) const noexcept;
  void store_tail(std::uint64_t tail) noexcept;

  SegmentView segment_;
  Bells bells_;
  std::uint64_t next_save_;         ///< to be announced next, or unfinished
  std::uint64_t take_;              ///< next position to take
  std::vector<std::uint8_t> done_;  ///< by slot: completed, but not below the tail yet
};

extern template class BasicConsumer<Orders>;
using Consumer = BasicConsumer<Orders>;

}  // namespace ckptring::ring
