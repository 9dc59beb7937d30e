// The code of consumer.h, for its one instance in consumer.cpp and for tests of other orders.
#pragma once

#include "base/align.h"
#include "ring/consumer.h"

#include <ckptring/error.h>

#include <algorithm>

namespace ckptring::ring {

template <class Orders>
BasicConsumer<Orders>::BasicConsumer(SegmentView segment, Bells bells)
    : segment_(segment),
      bells_(bells),
      // FINISH: written by this side or by a dead predecessor; no edge needed.
      next_save_(segment.consumer().finished_saves.load(std::memory_order_relaxed) + 1),
      take_(tail()),
      done_(static_cast<std::size_t>(segment.geometry().slot_count), 0) {}

template <class Orders>
void BasicConsumer<Orders>::start(std::uint32_t incarnation) noexcept {
  ConsumerLine& line = segment_.consumer();
  // DOORBELL: whatever the predecessor was about to do, this one is awake, and its peers look
  // again because the predecessor may have died between a store and its ring.
  line.data_sleeping.store(0, std::memory_order_seq_cst);
  note_step();
  line.ready.store(incarnation, std::memory_order_seq_cst);  // READY
  os::ring_bell(bells_.space);
  os::ring_bell(bells_.result);
}

template <class Orders>
bool BasicConsumer<Orders>::is_finished(std::uint64_t save) const noexcept {
  const IntentView wanted = intent(save);
  if (wanted.intent != Intent::sealed && wanted.intent != Intent::aborted) return false;
  return is_terminal(progress(save)) && tail() >= wanted.end_position;
}

template <class Orders>
std::optional<std::uint64_t> BasicConsumer<Orders>::next_save() noexcept {
  while (is_finished(next_save_)) {
    // FINISH: ends this side's looks at the record and its tables. seq_cst for DOORBELL.
    segment_.consumer().finished_saves.store(next_save_++, Orders::finish_store);
    ring_if_asleep(segment_.producer().space_sleeping, bells_.space);
  }
  if (intent(next_save_).intent == Intent::none) return std::nullopt;
  return next_save_;
}

template <class Orders>
std::span<std::byte> BasicConsumer<Orders>::plan_of(std::uint64_t save) const {
  const Record& record = segment_.record(save);
  const std::span<std::byte> area = segment_.plan_area();
  if (record.plan_position > area.size() ||
      record.description.plan_bytes > area.size() - record.plan_position) {
    throw Error(ErrorCode::internal, "read the plan of save " + std::to_string(save), "",
                "its tables lie outside of the plan area");
  }
  return area.subspan(static_cast<std::size_t>(record.plan_position),
                      static_cast<std::size_t>(record.description.plan_bytes));
}

template <class Orders>
IntentView BasicConsumer<Orders>::intent(std::uint64_t save) const noexcept {
  const Record& record = segment_.record(save);
  // INTENT; seq_cst for DOORBELL (called between flag and poll).
  const auto word = Word<Intent>::unpack(record.producer_word.load(Orders::intent_load));
  if (word.save != save) return {Intent::none, 0};
  // Ordered by the word above once it says sealed or aborted.
  return {word.state, record.end_position.load(std::memory_order_relaxed)};
}

template <class Orders>
Progress BasicConsumer<Orders>::progress(std::uint64_t save) const noexcept {
  // Written by this side or by a dead predecessor; no edge needed.
  const auto word =
      Word<Progress>::unpack(segment_.record(save).consumer_word.load(std::memory_order_relaxed));
  return word.save == save ? word.state : Progress::none;
}

template <class Orders>
std::uint64_t BasicConsumer<Orders>::tail() const noexcept {
  // Written by this side or by a dead predecessor; no edge needed.
  return segment_.consumer().tail.load(std::memory_order_relaxed);
}

template <class Orders>
bool BasicConsumer<Orders>::shutdown_requested() const noexcept {
  // SHUTDOWN; seq_cst for DOORBELL.
  return segment_.supervisor().shutdown.load(std::memory_order_seq_cst) != 0;
}

template <class Orders>
bool BasicConsumer<Orders>::can_take(std::uint64_t save) const noexcept {
  const Record& record = segment_.record(save);
  const std::uint64_t blocks =
      base::ceil_div(record.description.total_bytes, segment_.geometry().block_bytes);
  if (take_ < record.first_position || take_ - record.first_position >= blocks) return false;
  // PUBLISH; seq_cst for DOORBELL (called between flag and poll).
  if (segment_.slot(take_).published.load(Orders::publish_load) != take_ + 1) return false;
  // An aborted save ends early, and the next one begins right there. Looking at the intent after
  // the block tells whose it is: the producer stored the end before it claimed any further.
  const IntentView wanted = intent(save);
  const bool ended = wanted.intent == Intent::sealed || wanted.intent == Intent::aborted;
  return !ended || take_ < wanted.end_position;
}

template <class Orders>
std::optional<TakenBlock> BasicConsumer<Orders>::try_take(std::uint64_t save) noexcept {
  if (!can_take(save)) return std::nullopt;
  const Record& record = segment_.record(save);
  const std::uint64_t position = take_++;
  const std::uint64_t offset = (position - record.first_position) * segment_.geometry().block_bytes;
  return TakenBlock{
      position, offset,
      std::min(segment_.geometry().block_bytes, record.description.total_bytes - offset),
      segment_.block(position), segment_.slot(position).voided != 0};
}

template <class Orders>
void BasicConsumer<Orders>::complete(std::uint64_t position) {
  const std::uint64_t slots = segment_.geometry().slot_count;
  std::uint64_t at = tail();
  if (position < at || position >= take_) {
    throw Error(ErrorCode::internal, "release a block", "", "it was not taken");
  }
  done_[static_cast<std::size_t>(position % slots)] = 1;
  const std::uint64_t before = at;
  while (at < take_ && done_[static_cast<std::size_t>(at % slots)] != 0) {
    done_[static_cast<std::size_t>(at % slots)] = 0;
    ++at;
  }
  note_step();
  if (at != before) store_tail(at);
}

template <class Orders>
void BasicConsumer<Orders>::release_through(std::uint64_t end) noexcept {
  std::fill(done_.begin(), done_.end(), std::uint8_t{0});
  take_ = std::max(take_, end);
  note_step();
  if (end > tail()) store_tail(end);
}

template <class Orders>
void BasicConsumer<Orders>::store_tail(std::uint64_t tail) noexcept {
  // RELEASE: ends this side's reads of the blocks and publishes their ledger entries to a
  // successor. seq_cst for DOORBELL.
  segment_.consumer().tail.store(tail, Orders::release_store);
  ring_if_asleep(segment_.producer().space_sleeping, bells_.space);
}

template <class Orders>
void BasicConsumer<Orders>::set_progress(std::uint64_t save, Progress progress) noexcept {
  // OUTCOME: releases the outcome's fields. seq_cst for DOORBELL.
  segment_.record(save).consumer_word.store(Word<Progress>{save, progress}.packed(),
                                            Orders::outcome_store);
  note_step();
  ring_if_asleep(segment_.supervisor().result_sleeping, bells_.result);
  // The producer may wait for room in a save that just failed.
  ring_if_asleep(segment_.producer().space_sleeping, bells_.space);
}

template <class Orders>
void BasicConsumer<Orders>::note_step() noexcept {
  // A time-out's hint; orders nothing.
  segment_.consumer().progress_ns.store(os::monotonic_ns(), std::memory_order_relaxed);
}

}  // namespace ckptring::ring
