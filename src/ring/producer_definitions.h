// The code of producer.h, for its one instance in producer.cpp and for tests of other orders.
#pragma once

#include "base/align.h"
#include "ring/doorbell.h"
#include "ring/producer.h"
#include "ring/progress_of.h"

#include <ckptring/error.h>

#include <algorithm>
#include <array>
#include <utility>

namespace ckptring::ring {

inline Error misuse_of_ring(const char* what) {
  return {ErrorCode::internal, "use the ring", "", what};
}

/// Whether nobody will look at this save's record, tables and blocks any more.
template <class Orders>
bool BasicProducer<Orders>::is_finished(std::uint64_t save) const noexcept {
  // FINISH, and DOORBELL: called between a sleeper's flag and its poll.
  return segment_.consumer().finished_saves.load(Orders::finish_load) >= save;
}

template <class Orders>
BasicBlockClaim<Orders>::BasicBlockClaim(BasicBlockClaim&& other) noexcept
    : producer_(std::exchange(other.producer_, nullptr)),
      position_(other.position_),
      file_offset_(other.file_offset_),
      bytes_(other.bytes_) {}

template <class Orders>
BasicBlockClaim<Orders>::~BasicBlockClaim() {
  if (producer_ != nullptr) producer_->publish(position_, true);
}

template <class Orders>
void BasicBlockClaim<Orders>::publish() noexcept {
  std::exchange(producer_, nullptr)->publish(position_, false);
}

template <class Orders>
bool BasicProducer<Orders>::fits(std::uint64_t plan_bytes) const noexcept {
  return base::align_up(plan_bytes, kCacheLine) <= segment_.geometry().plan_bytes;
}

template <class Orders>
void BasicProducer<Orders>::forget_finished() const {
  // The open save is never finished: it is neither sealed nor aborted.
  while (!plans_.empty() && is_finished(plans_.front().save)) plans_.pop_front();
}

/// Positions of the plan area only grow, like those of blocks; tables never wrap, so the rest of
/// a lap may be skipped.
template <class Orders>
std::optional<std::uint64_t> BasicProducer<Orders>::place_for(std::uint64_t plan_bytes) const {
  const std::uint64_t size = segment_.geometry().plan_bytes;
  const std::uint64_t bytes = base::align_up(plan_bytes, kCacheLine);
  if (bytes > size) return std::nullopt;
  forget_finished();
  if (plans_.empty()) return 0;  // nobody looks at any table: start over
  std::uint64_t position = plans_.back().position + plans_.back().bytes;
  const std::uint64_t left_in_lap = size - position % size;
  if (bytes > left_in_lap) position += left_in_lap;
  const std::uint64_t oldest = plans_.front().position;
  if (position + bytes - oldest > size) return std::nullopt;
  return position;
}

template <class Orders>
bool BasicProducer<Orders>::can_open(std::uint64_t plan_bytes) const noexcept {
  const std::uint64_t records = segment_.geometry().record_count;
  const std::uint64_t next = save_ + 1;
  if (next > records && !is_finished(next - records)) return false;
  return place_for(plan_bytes).has_value();
}

template <class Orders>
std::uint64_t BasicProducer<Orders>::open(
    const Description& description, const std::function<void(std::span<std::byte> plan)>& fill) {
  if (open_) throw misuse_of_ring("the previous save is neither sealed nor aborted");
  if (!can_open(description.plan_bytes)) throw misuse_of_ring("no record or plan area is free");
  if (description.total_bytes == 0) throw misuse_of_ring("a save of no bytes");
  const std::uint64_t position = *place_for(description.plan_bytes);
  const std::uint64_t plan_size = base::align_up(description.plan_bytes, kCacheLine);
  const std::uint64_t next = save_ + 1;
  Record& record = segment_.record(next);
  record.first_position = claimed_;
  record.plan_position = position % segment_.geometry().plan_bytes;
  record.description = description;
  // Means nothing until sealed or aborted; INTENT orders it then.
  record.end_position.store(UINT64_MAX, std::memory_order_relaxed);
  // What may throw comes before the save has its number: the consumer would wait for one that is
  // left out.
  fill(segment_.plan_area().subspan(static_cast<std::size_t>(record.plan_position),
                                    static_cast<std::size_t>(description.plan_bytes)));
  plans_.push_back({next, position, plan_size});
  save_ = next;
  first_ = claimed_;
  total_bytes_ = description.total_bytes;
  end_ = first_ + base::ceil_div(total_bytes_, segment_.geometry().block_bytes);
  voided_.store(0, std::memory_order_relaxed);  // no claim of this save exists yet
  open_ = true;
  store_intent(save_, Intent::staging);
  return save_;
}

template <class Orders>
void BasicProducer<Orders>::store_intent(std::uint64_t save, Intent intent) noexcept {
  // INTENT: releases the record's description, its tables and its end. seq_cst for DOORBELL.
  segment_.record(save).producer_word.store(Word<Intent>{save, intent}.packed(),
                                            Orders::intent_store);
  last_publish_ns_.store(os::monotonic_ns(), std::memory_order_relaxed);
  ring_if_asleep(segment_.consumer().data_sleeping, bells_.data);
}

template <class Orders>
std::optional<BasicBlockClaim<Orders>> BasicProducer<Orders>::try_claim() noexcept {
  if (!open_ || claimed_ == end_) return std::nullopt;
  // RELEASE: the slot's last reader is done. seq_cst for DOORBELL (called between flag and poll).
  const std::uint64_t tail = segment_.consumer().tail.load(Orders::release_load);
  if (claimed_ - tail >= segment_.geometry().slot_count) return std::nullopt;
  const std::uint64_t position = claimed_++;
  // PUBLISH, seen from this side: a thread of this process filled the slot a lap ago, and another
  // one may fill it now. RELEASE orders them by way of the other process, where no checker of
  // races sees it.
  (void)segment_.slot(position).published.load(std::memory_order_acquire);
  // Counts for this process's own threads only; paired with the release in publish.
  claims_out_.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t offset = (position - first_) * segment_.geometry().block_bytes;
  const std::uint64_t size = std::min(segment_.geometry().block_bytes, total_bytes_ - offset);
  return BlockClaim(*this, position, offset,
                    segment_.block(position).first(static_cast<std::size_t>(size)));
}

template <class Orders>
void BasicProducer<Orders>::publish(std::uint64_t position, bool voided) noexcept {
  Slot& slot = segment_.slot(position);
  slot.voided = voided ? 1 : 0;
  if (voided) voided_.store(1, std::memory_order_relaxed);  // ordered by claims_out_ below
  // PUBLISH: releases the block's bytes. seq_cst for DOORBELL.
  slot.published.store(position + 1, Orders::publish_store);
  last_publish_ns_.store(os::monotonic_ns(), std::memory_order_relaxed);
  ring_if_asleep(segment_.consumer().data_sleeping, bells_.data);
  // Within the trainer: seal and abort see every publish that they counted.
  claims_out_.fetch_sub(1, std::memory_order_release);
}

template <class Orders>
bool BasicProducer<Orders>::current_failed() const noexcept {
  return is_terminal(progress_of<Orders>(segment_.record(save_), save_));
}

template <class Orders>
void BasicProducer<Orders>::seal() {
  if (!open_ || claimed_ != end_) throw misuse_of_ring("sealed before every block was claimed");
  // Pairs with the release in publish.
  if (claims_out_.load(std::memory_order_acquire) != 0)
    throw misuse_of_ring("sealed with claims out");
  if (voided_.load(std::memory_order_relaxed) != 0) throw misuse_of_ring("sealed with void blocks");
  // INTENT orders it.
  segment_.record(save_).end_position.store(end_, std::memory_order_relaxed);
  open_ = false;
  store_intent(save_, Intent::sealed);
}

template <class Orders>
void BasicProducer<Orders>::abort() {
  if (!open_) throw misuse_of_ring("aborted without an open save");
  // Pairs with the release in publish.
  if (claims_out_.load(std::memory_order_acquire) != 0)
    throw misuse_of_ring("aborted with claims out");
  end_ = claimed_;
  // INTENT orders it.
  segment_.record(save_).end_position.store(end_, std::memory_order_relaxed);
  open_ = false;
  store_intent(save_, Intent::aborted);
}

/// Reads what does not change while the save is open, and no counts of the staging thread's.
template <class Orders>
void BasicProducer<Orders>::abandon(std::uint64_t save) noexcept {
  Record& record = segment_.record(save);
  const std::uint64_t end = record.first_position + base::ceil_div(record.description.total_bytes,
                                                                   segment_.geometry().block_bytes);
  // INTENT orders it. Behind every block that was claimed.
  record.end_position.store(end, std::memory_order_relaxed);
  store_intent(save, Intent::aborted);
}

template <class Orders>
bool BasicProducer<Orders>::wait_for_slot(int stop_fd, os::Deadline deadline) {
  const auto moved = [this] {
    // RELEASE, DOORBELL.
    const std::uint64_t tail = segment_.consumer().tail.load(Orders::release_load);
    return claimed_ - tail < segment_.geometry().slot_count || current_failed();
  };
  std::array<os::Waitable, 1> others{os::Waitable{stop_fd}};
  return sleep_until(segment_.producer().space_sleeping, bells_.space, moved, others, deadline);
}

template <class Orders>
bool BasicProducer<Orders>::wait_for_record(std::uint64_t plan_bytes, int stop_fd,
                                            os::Deadline deadline) {
  std::array<os::Waitable, 1> others{os::Waitable{stop_fd}};
  return sleep_until(
      segment_.producer().space_sleeping, bells_.space,
      [this, plan_bytes] { return can_open(plan_bytes); }, others, deadline);
}

}  // namespace ckptring::ring
