// States that a producer or a dead consumer may leave behind, built by hand.
#include "ring/consumer.h"

#include "ring/producer.h"
#include "ring/ring_memory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <array>

namespace ckptring::ring::test {
namespace {

class ConsumerTest : public ::testing::Test {
 protected:
  RingMemory ring_;

  static std::uint64_t take(Consumer& from, std::uint64_t save) {
    const auto block = from.try_take(save);
    return block ? block->position : UINT64_MAX;
  }
  static constexpr std::uint64_t kNone = UINT64_MAX;
};

// ------------------------------------------------------------------------------------ blocks

TEST_F(ConsumerTest, AnEmptyRingHasNoSave) {
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(consumer.next_save());
  EXPECT_EQ(consumer.intent(1).intent, Intent::none);
  EXPECT_EQ(consumer.progress(1), Progress::none);
}

TEST_F(ConsumerTest, ABlockThatIsClaimedButNotPublishedIsNotTaken) {
  ring_.announce(1, 0, 4 * kBlock, Intent::staging);
  std::memset(ring_.view().block(0).data(), 1, kBlock);  // filled, and the trainer died there
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  EXPECT_FALSE(consumer.can_take(1));
  EXPECT_FALSE(consumer.try_take(1));
}

TEST_F(ConsumerTest, BlocksPublishedOutOfOrderAreTakenInOrder) {
  ring_.announce(1, 0, 4 * kBlock, Intent::staging);
  ring_.publish(1);
  ring_.publish(3);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(take(consumer, 1), kNone);
  ring_.publish(0);
  EXPECT_EQ(take(consumer, 1), 0u);
  EXPECT_EQ(take(consumer, 1), 1u);
  EXPECT_EQ(take(consumer, 1), kNone);
  ring_.publish(2);
  EXPECT_EQ(take(consumer, 1), 2u);
  EXPECT_EQ(take(consumer, 1), 3u);
  EXPECT_EQ(take(consumer, 1), kNone);
}

TEST_F(ConsumerTest, ATakenBlockKnowsItsPlaceInTheFile) {
  ring_.announce(1, 6, 2 * kBlock + 5, Intent::staging);
  ring_.set_tail(6);
  ring_.publish_all(6, 9);
  Consumer consumer(ring_.view(), ring_.bells());
  for (std::uint64_t i = 0; i < 3; ++i) {
    const auto block = consumer.try_take(1);
    ASSERT_TRUE(block);
    EXPECT_EQ(block->file_offset, i * kBlock);
    EXPECT_EQ(block->size, i < 2 ? kBlock : 5);
    EXPECT_EQ(block->memory.data(), ring_.view().block(6 + i).data());
    EXPECT_EQ(block->memory.size(), kBlock);
    EXPECT_FALSE(block->voided);
  }
}

TEST_F(ConsumerTest, AVoidBlockSaysSo) {
  ring_.announce(1, 0, 2 * kBlock, Intent::staging);
  ring_.publish(0, false);
  ring_.publish(1, true);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(consumer.try_take(1)->voided);
  EXPECT_TRUE(consumer.try_take(1)->voided);
}

TEST_F(ConsumerTest, AWordOfAnEarlierLapIsNoPublishedBlock) {
  for (std::uint64_t position = 0; position < 4; ++position) ring_.publish(position);
  ring_.announce(1, 4, 4 * kBlock, Intent::staging);
  ring_.set_tail(4);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(take(consumer, 1), kNone);
  ring_.publish(4);
  EXPECT_EQ(take(consumer, 1), 4u);
  EXPECT_EQ(take(consumer, 1), kNone);
}

TEST_F(ConsumerTest, TakesNothingBehindTheEndOfTheFile) {
  ring_.announce(1, 0, kBlock, Intent::sealed, 1);
  ring_.announce(2, 1, kBlock, Intent::staging);
  ring_.publish(0);
  ring_.publish(1);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(take(consumer, 1), 0u);
  EXPECT_EQ(take(consumer, 1), kNone) << "block 1 is the next save's";
}

TEST_F(ConsumerTest, TheTailMovesOnlyOverBlocksThatAreAllDone) {
  ring_.announce(1, 0, 4 * kBlock, Intent::staging);
  ring_.publish_all(0, 4);
  Consumer consumer(ring_.view(), ring_.bells());
  for (int i = 0; i < 4; ++i) (void)consumer.try_take(1);
  consumer.complete(2);
  EXPECT_EQ(ring_.tail(), 0u);
  consumer.complete(1);
  EXPECT_EQ(ring_.tail(), 0u);
  consumer.complete(0);
  EXPECT_EQ(ring_.tail(), 3u);
  consumer.complete(3);
  EXPECT_EQ(ring_.tail(), 4u);
}

TEST_F(ConsumerTest, CompletionsWorkAcrossTheEndOfALap) {
  ring_.announce(1, 2, 4 * kBlock, Intent::staging);
  ring_.set_tail(2);
  ring_.publish_all(2, 6);
  Consumer consumer(ring_.view(), ring_.bells());
  for (int i = 0; i < 4; ++i) (void)consumer.try_take(1);
  consumer.complete(5);
  consumer.complete(3);
  EXPECT_EQ(ring_.tail(), 2u);
  consumer.complete(2);
  EXPECT_EQ(ring_.tail(), 4u);
  consumer.complete(4);
  EXPECT_EQ(ring_.tail(), 6u);
}

TEST_F(ConsumerTest, OnlyATakenBlockCanBeCompleted) {
  ring_.announce(1, 0, 4 * kBlock, Intent::staging);
  ring_.publish_all(0, 2);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_THROW(consumer.complete(0), Error);
  (void)consumer.try_take(1);
  EXPECT_THROW(consumer.complete(1), Error);
  consumer.complete(0);
  EXPECT_THROW(consumer.complete(0), Error);
}

// ----------------------------------------------------------------------------------- aborted

TEST_F(ConsumerTest, AnAbortedSaveEndsEarlyWithTheNextOneRightBehind) {
  ring_.announce(1, 0, 4 * kBlock, Intent::aborted, 1);
  ring_.announce(2, 1, 2 * kBlock, Intent::staging);
  ring_.publish_all(0, 3);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  EXPECT_EQ(take(consumer, 1), 0u);
  EXPECT_EQ(take(consumer, 1), kNone) << "block 1 is the next save's";
  consumer.release_through(1);
  consumer.set_progress(1, Progress::aborted);
  EXPECT_EQ(consumer.next_save(), 2u);
  const auto block = consumer.try_take(2);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->position, 1u);
  EXPECT_EQ(block->file_offset, 0u);
}

TEST_F(ConsumerTest, ASaveAbortedWithoutAnyBlockTakesNone) {
  ring_.announce(1, 0, 4 * kBlock, Intent::aborted, 0);
  ring_.announce(2, 0, 4 * kBlock, Intent::staging);
  ring_.publish(0);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(take(consumer, 1), kNone);
  consumer.release_through(0);
  consumer.set_progress(1, Progress::aborted);
  EXPECT_EQ(ring_.tail(), 0u);
  EXPECT_EQ(consumer.next_save(), 2u);
  EXPECT_EQ(take(consumer, 2), 0u);
}

TEST_F(ConsumerTest, ReleasedBlocksAreNeitherTakenNorCompletedAnyMore) {
  ring_.announce(1, 0, 4 * kBlock, Intent::aborted, 3);
  ring_.publish_all(0, 3);
  Consumer consumer(ring_.view(), ring_.bells());
  (void)consumer.try_take(1);
  (void)consumer.try_take(1);
  consumer.complete(1);
  consumer.release_through(3);
  EXPECT_EQ(ring_.tail(), 3u);
  EXPECT_THROW(consumer.complete(0), Error);
  // What was noted of block 1 must not count for the block that reuses its slot.
  ring_.announce(2, 3, 4 * kBlock, Intent::staging);
  ring_.publish_all(3, 7);
  for (int i = 0; i < 4; ++i) (void)consumer.try_take(2);
  consumer.complete(3);
  consumer.complete(4);
  EXPECT_EQ(ring_.tail(), 5u);
}

TEST_F(ConsumerTest, ReleasingNeverMovesTheTailBack) {
  ring_.announce(1, 0, 2 * kBlock, Intent::sealed, 2);
  ring_.publish_all(0, 2);
  Consumer consumer(ring_.view(), ring_.bells());
  for (std::uint64_t i = 0; i < 2; ++i) {
    (void)consumer.try_take(1);
    consumer.complete(i);
  }
  consumer.release_through(1);
  EXPECT_EQ(ring_.tail(), 2u);
}

// ---------------------------------------------------------------------------------- finished

TEST_F(ConsumerTest, ASaveIsFinishedOnlyWhenBothSidesAreDoneWithIt) {
  ring_.announce(1, 0, 2 * kBlock, Intent::staging);
  ring_.publish_all(0, 2);
  Consumer consumer(ring_.view(), ring_.bells());
  consumer.set_progress(1, Progress::failed);
  EXPECT_EQ(consumer.next_save(), 1u) << "the trainer still copies";
  ring_.announce(1, 0, 2 * kBlock, Intent::sealed, 2);
  EXPECT_EQ(consumer.next_save(), 1u) << "its blocks are not released";
  EXPECT_EQ(ring_.finished(), 0u);
  consumer.release_through(2);
  EXPECT_FALSE(consumer.next_save());
  EXPECT_EQ(ring_.finished(), 1u);
}

TEST_F(ConsumerTest, FinishingASaveWakesAProducerThatWaitsForItsRecord) {
  ring_.announce(1, 0, kBlock, Intent::sealed, 1);
  ring_.set_tail(1);
  ring_.set_consumer_word(1, Progress::committed);
  ring_.view().producer().space_sleeping = 1;
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(rung(ring_.bells().space));
  EXPECT_FALSE(consumer.next_save());
  EXPECT_TRUE(rung(ring_.bells().space));
}

TEST_F(ConsumerTest, AnOutcomeOfAnEarlierSaveInTheSameRecordIsNotThisOnes) {
  ring_.set_finished(1);
  ring_.set_consumer_word(1, Progress::committed);
  ring_.announce(4, 0, kBlock, Intent::staging);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.progress(4), Progress::none);
  EXPECT_EQ(consumer.progress(1), Progress::committed);
  EXPECT_EQ(consumer.intent(1).intent, Intent::none);
}

// ---------------------------------------------------------------------------------- restarts

class ConsumerRestart : public ConsumerTest, public ::testing::WithParamInterface<Progress> {};

TEST_P(ConsumerRestart, GoesOnWithWhateverWordWasLeft) {
  ring_.announce(1, 0, 4 * kBlock, Intent::sealed, 4);
  ring_.announce(2, 4, 4 * kBlock, Intent::staging);
  ring_.publish_all(0, 5);
  ring_.set_tail(1);
  if (GetParam() != Progress::none) ring_.set_consumer_word(1, GetParam());
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  EXPECT_EQ(consumer.progress(1), GetParam());
  EXPECT_EQ(consumer.tail(), 1u);
  const auto block = consumer.try_take(1);
  ASSERT_TRUE(block);
  EXPECT_EQ(block->position, 1u);
  EXPECT_EQ(block->file_offset, kBlock);
}

INSTANTIATE_TEST_SUITE_P(EveryWord, ConsumerRestart,
                         ::testing::Values(Progress::none, Progress::open, Progress::syncing,
                                           Progress::renaming, Progress::committed,
                                           Progress::failed, Progress::aborted));

TEST_F(ConsumerTest, ARestartTakesAgainWhatWasTakenButNotReleased) {
  ring_.announce(1, 0, 4 * kBlock, Intent::sealed, 4);
  ring_.publish_all(0, 4);
  {
    Consumer killed(ring_.view(), ring_.bells());
    for (int i = 0; i < 4; ++i) (void)killed.try_take(1);
    killed.complete(0);
    killed.complete(2);  // on disk, but block 1 is not
  }
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  for (std::uint64_t position = 1; position < 4; ++position) {
    EXPECT_EQ(take(consumer, 1), position);
    consumer.complete(position);
  }
  EXPECT_EQ(ring_.tail(), 4u);
}

TEST_F(ConsumerTest, ARestartBetweenTheOutcomeAndSayingThatTheSaveIsFinishedMovesOn) {
  ring_.announce(1, 0, kBlock, Intent::sealed, 1);
  ring_.set_tail(1);
  ring_.set_consumer_word(1, Progress::committed);
  ring_.announce(2, 1, kBlock, Intent::staging);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 2u);
  EXPECT_EQ(ring_.finished(), 1u);
}

TEST_F(ConsumerTest, ARestartFindsAnEndedSaveWhoseBlocksWereNotReleased) {
  ring_.announce(1, 0, 4 * kBlock, Intent::sealed, 4);
  ring_.publish_all(0, 4);
  ring_.set_tail(2);
  ring_.set_consumer_word(1, Progress::failed);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  EXPECT_EQ(consumer.progress(1), Progress::failed);
  consumer.release_through(consumer.intent(1).end_position);
  EXPECT_FALSE(consumer.next_save());
  EXPECT_EQ(ring_.tail(), 4u);
}

TEST_F(ConsumerTest, ARestartAfterTheReleaseOfAnAbortedSaveLeavesTheNextOnesBlocksAlone) {
  // The predecessor let the blocks of save 1 go and died before it stored "aborted"; the producer
  // has gone on in the meantime.
  ring_.announce(1, 0, 4 * kBlock, Intent::aborted, 2);
  ring_.set_consumer_word(1, Progress::open);
  ring_.set_tail(2);
  ring_.announce(2, 2, 4 * kBlock, Intent::staging);
  ring_.publish_all(2, 6);
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_EQ(consumer.next_save(), 1u);
  EXPECT_EQ(take(consumer, 1), kNone);
  consumer.release_through(2);
  consumer.set_progress(1, Progress::aborted);
  EXPECT_EQ(consumer.next_save(), 2u);
  EXPECT_EQ(take(consumer, 2), 2u);
}

TEST_F(ConsumerTest, ARestartDoesNotLookAtARecordThatIsBeingReused) {
  // Saves 1 to 3 are over. The producer is in the middle of announcing save 4 in the record of
  // save 1: the end is reset, the word still names save 1.
  for (std::uint64_t save = 1; save <= 3; ++save) {
    ring_.announce(save, save - 1, kBlock, Intent::sealed, save);
    ring_.set_consumer_word(save, Progress::committed);
  }
  ring_.set_tail(3);
  ring_.set_finished(3);
  Record& record = ring_.view().record(4);
  record.first_position = 3;
  record.end_position = UINT64_MAX;
  record.description.total_bytes = 4 * kBlock;
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(consumer.next_save());
  EXPECT_EQ(ring_.tail(), 3u);
  ring_.announce(4, 3, 4 * kBlock, Intent::staging);
  EXPECT_EQ(consumer.next_save(), 4u);
}

TEST_F(ConsumerTest, ARestartWithManySavesBehindItGoesOnWithTheRightOne) {
  Producer producer(ring_.view(), ring_.bells());
  for (std::uint64_t save = 1; save <= 10; ++save) {
    ASSERT_EQ(producer.open(file_of(2 * kBlock), [](auto) {}), save);
    producer.try_claim()->publish();
    producer.try_claim()->publish();
    producer.seal();
    for (std::uint64_t block = 0; block < 2; ++block) {
      Consumer next(ring_.view(), ring_.bells());  // every block, a new one
      ASSERT_EQ(next.next_save(), save);
      const auto taken = next.try_take(save);
      ASSERT_TRUE(taken);
      EXPECT_EQ(taken->file_offset, block * kBlock);
      next.complete(taken->position);
    }
    Consumer last(ring_.view(), ring_.bells());
    last.set_progress(save, Progress::committed);
    EXPECT_FALSE(last.next_save());
  }
}

// ------------------------------------------------------------------------------------- bells

TEST_F(ConsumerTest, StartingClearsItsOwnFlagAndRingsTheTrainersBells) {
  ring_.view().consumer().data_sleeping = 1;  // the predecessor was killed in its sleep
  Consumer consumer(ring_.view(), ring_.bells());
  consumer.start(7);
  EXPECT_EQ(ring_.view().consumer().data_sleeping, 0u);
  EXPECT_EQ(ring_.view().consumer().ready, 7u);
  EXPECT_TRUE(rung(ring_.bells().space));
  EXPECT_TRUE(rung(ring_.bells().result));
  EXPECT_FALSE(rung(ring_.bells().data));
}

TEST_F(ConsumerTest, WakesWhoeverWaitsForWhatItDidAndNobodyElse) {
  ring_.announce(1, 0, 4 * kBlock, Intent::staging);
  ring_.publish_all(0, 3);
  Consumer consumer(ring_.view(), ring_.bells());
  for (int i = 0; i < 3; ++i) (void)consumer.try_take(1);
  consumer.complete(0);
  consumer.set_progress(1, Progress::open);
  EXPECT_FALSE(rung(ring_.bells().space));
  EXPECT_FALSE(rung(ring_.bells().result));
  ring_.view().producer().space_sleeping = 1;
  consumer.complete(2);
  EXPECT_FALSE(rung(ring_.bells().space)) << "no slot became free";
  consumer.complete(1);
  EXPECT_TRUE(rung(ring_.bells().space));
  EXPECT_FALSE(rung(ring_.bells().result));
  os::clear_bell(ring_.bells().space);
  ring_.view().supervisor().result_sleeping = 1;
  consumer.set_progress(1, Progress::failed);
  EXPECT_TRUE(rung(ring_.bells().result));
  EXPECT_TRUE(rung(ring_.bells().space)) << "a producer that waits for room has to know";
}

TEST_F(ConsumerTest, SleepsUntilTheTrainerWantsSomething) {
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(
      consumer.sleep([&] { return consumer.next_save().has_value(); }, {}, os::Deadline::after(0)));
  Producer producer(ring_.view(), ring_.bells());
  bool first_look = true;
  EXPECT_TRUE(consumer.sleep(
      [&] {
        const bool seen = consumer.next_save().has_value();
        if (std::exchange(first_look, false)) producer.open(file_of(kBlock), [](auto) {});
        return seen;
      },
      {}, os::Deadline::never()));
  EXPECT_EQ(ring_.view().consumer().data_sleeping, 0u);
}

TEST_F(ConsumerTest, SeesThatItShallEnd) {
  Consumer consumer(ring_.view(), ring_.bells());
  EXPECT_FALSE(consumer.shutdown_requested());
  ring_.view().supervisor().shutdown = 1;
  EXPECT_TRUE(consumer.shutdown_requested());
}

TEST_F(ConsumerTest, EveryStepResetsTheClockOfTheTimeOuts) {
  ring_.announce(1, 0, kBlock, Intent::staging);
  ring_.publish(0);
  Consumer consumer(ring_.view(), ring_.bells());
  const auto steps = [&] { return ring_.view().consumer().progress_ns.exchange(0) != 0; };
  consumer.set_progress(1, Progress::open);
  EXPECT_TRUE(steps());
  (void)consumer.try_take(1);
  EXPECT_FALSE(steps()) << "taking a block writes nothing";
  consumer.complete(0);
  EXPECT_TRUE(steps());
  consumer.release_through(1);
  EXPECT_TRUE(steps());
}

// ------------------------------------------------------------------------------------ tables

TEST_F(ConsumerTest, TablesOutsideOfThePlanAreaAreRefused) {
  ring_.announce(1, 0, kBlock, Intent::staging);
  Consumer consumer(ring_.view(), ring_.bells());
  Record& record = ring_.view().record(1);
  record.plan_position = 64;
  record.description.plan_bytes = 192;
  EXPECT_EQ(consumer.plan_of(1).data(), ring_.view().plan_area().data() + 64);
  EXPECT_EQ(consumer.plan_of(1).size(), 192u);
  record.description.plan_bytes = 193;
  EXPECT_THROW((void)consumer.plan_of(1), Error);
  record.description.plan_bytes = UINT64_MAX;
  EXPECT_THROW((void)consumer.plan_of(1), Error);
  record.plan_position = UINT64_MAX;
  record.description.plan_bytes = 2;
  EXPECT_THROW((void)consumer.plan_of(1), Error);
}

}  // namespace
}  // namespace ckptring::ring::test
