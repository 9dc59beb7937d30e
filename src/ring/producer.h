// The trainer's end of the ring.
//
// Exactly one Producer exists for a segment. open, try_claim, seal, abort and the waits belong to
// one thread at a time; a BlockClaim may be filled and published by any thread.
#pragma once

#include "os/clock.h"
#include "ring/orders.h"
#include "ring/segment.h"

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>

namespace ckptring::ring {

template <class Orders>
class BasicProducer;

/// One claimed block. Write in place, then publish. A claim that is dropped publishes its block
/// as void; its save can then only be aborted.
template <class Orders>
class BasicBlockClaim {
 public:
  BasicBlockClaim(BasicBlockClaim&& other) noexcept;
  BasicBlockClaim& operator=(BasicBlockClaim&&) = delete;
  ~BasicBlockClaim();

  /// The bytes of the file that belong here: a whole block, or less at the end of the file.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t file_offset() const noexcept { return file_offset_; }
  /// Hands the block to the consumer. Once.
  void publish() noexcept;

 private:
  friend class BasicProducer<Orders>;
  BasicBlockClaim(BasicProducer<Orders>& producer, std::uint64_t position,
                  std::uint64_t file_offset, std::span<std::byte> bytes) noexcept
      : producer_(&producer), position_(position), file_offset_(file_offset), bytes_(bytes) {}
  BasicProducer<Orders>* producer_;
  std::uint64_t position_;
  std::uint64_t file_offset_;
  std::span<std::byte> bytes_;
};

template <class Orders>
class BasicProducer {
  using BlockClaim = BasicBlockClaim<Orders>;

 public:
  BasicProducer(SegmentView segment, Bells bells) : segment_(segment), bells_(bells) {}
  BasicProducer(const BasicProducer&) = delete;
  BasicProducer& operator=(const BasicProducer&) = delete;

  /// Whether a plan's tables fit into the plan area at all.
  [[nodiscard]] bool fits(std::uint64_t plan_bytes) const noexcept;

  /// Whether a record and room for the tables are free now.
  [[nodiscard]] bool can_open(std::uint64_t plan_bytes) const noexcept;

  /// Announces the next save. `fill` writes the tables before anybody can see them. Requires
  /// can_open(description.plan_bytes) and that the previous save is sealed or aborted.
  /// @return its number, from 1
  std::uint64_t open(const Description& description,
                     const std::function<void(std::span<std::byte> plan)>& fill);

  [[nodiscard]] std::uint64_t current_save() const noexcept { return save_; }
  [[nodiscard]] bool all_claimed() const noexcept { return claimed_ == end_; }

  /// The next block of the current save, if a slot is free and blocks are left.
  std::optional<BlockClaim> try_claim() noexcept;

  /// Whether the consumer has given up on the current save.
  [[nodiscard]] bool current_failed() const noexcept;

  /// Ends the current save: every block was claimed and published.
  void seal();
  /// Gives the current save up. Every claim must have ended.
  void abort();
  /// Gives an open save up although claims are out, perhaps for ever, and what fills them may go
  /// on. Nothing else is done with this ring from then on but to publish or drop those. Any thread
  /// that knows of the save; seal and abort may not run meanwhile.
  void abandon(std::uint64_t save) noexcept;
  /// Whether a save is announced and neither sealed nor aborted.
  [[nodiscard]] bool is_open() const noexcept { return open_; }

  /// Sleeps until a block can be claimed or the current save failed; false if `stop_fd` became
  /// readable or the deadline passed.
  bool wait_for_slot(int stop_fd, os::Deadline deadline);
  /// The same for can_open.
  bool wait_for_record(std::uint64_t plan_bytes, int stop_fd, os::Deadline deadline);

  /// Monotonic time of the last publish or seal; 0 before the first. Any thread.
  [[nodiscard]] std::uint64_t last_publish_ns() const noexcept {
    // A time-out's hint; orders nothing.
    return last_publish_ns_.load(std::memory_order_relaxed);
  }

 private:
  friend class BasicBlockClaim<Orders>;
  void publish(std::uint64_t position, bool voided) noexcept;
  void store_intent(std::uint64_t save, Intent intent) noexcept;
  [[nodiscard]] bool is_finished(std::uint64_t save) const noexcept;
  void forget_finished() const;
  [[nodiscard]] std::optional<std::uint64_t> place_for(std::uint64_t plan_bytes) const;

  SegmentView segment_;
  Bells bells_;
  std::uint64_t save_ = 0;     ///< number of the last save opened
  std::uint64_t first_ = 0;    ///< its first block's position
  std::uint64_t claimed_ = 0;  ///< next position to claim
  std::uint64_t end_ = 0;      ///< position behind its last block
  std::uint64_t total_bytes_ = 0;
  bool open_ = false;
  std::atomic<std::uint64_t> claims_out_{0};
  std::atomic<std::uint32_t> voided_{0};
  std::atomic<std::uint64_t> last_publish_ns_{0};

  /// Tables whose save may still be drained, oldest first.
  struct PlanInUse {
    std::uint64_t save;
    std::uint64_t position;
    std::uint64_t bytes;
  };
  mutable std::deque<PlanInUse> plans_;
};

extern template class BasicBlockClaim<Orders>;
extern template class BasicProducer<Orders>;
using BlockClaim = BasicBlockClaim<Orders>;
using Producer = BasicProducer<Orders>;

}  // namespace ckptring::ring
