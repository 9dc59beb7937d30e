#include "ring/producer.h"

#include "ring/ring_memory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <new>
#include <random>
#include <thread>
#include <vector>

namespace ckptring::ring::test {
namespace {

const auto kNoTables = [](std::span<std::byte>) {};
constexpr double kFarSecs = 3600;

class ProducerTest : public ::testing::Test {
 protected:
  explicit ProducerTest(const Geometry& geometry = kSmall)
      : ring_(geometry), producer_(ring_.view(), ring_.bells()) {}

  std::uint64_t open(std::uint64_t blocks) {
    return producer_.open(file_of(blocks * kBlock), kNoTables);
  }
  std::uint64_t published(std::uint64_t position) {
    return ring_.view().slot(position).published.load();
  }
  /// Claims and publishes until the save's end; the ring must have room.
  void publish_rest() {
    while (!producer_.all_claimed()) {
      auto claim = producer_.try_claim();
      ASSERT_TRUE(claim);
      claim->publish();
    }
  }
  /// As a consumer that has written and committed everything up to here.
  void finish(std::uint64_t save) {
    ring_.set_tail(ring_.view().record(save).end_position.load());
    ring_.set_consumer_word(save, Progress::committed);
    ring_.set_finished(save);
  }
  void save_and_finish(std::uint64_t blocks) {
    const std::uint64_t save = open(blocks);
    publish_rest();
    producer_.seal();
    finish(save);
  }

  RingMemory ring_;
  Producer producer_;
};

TEST_F(ProducerTest, NumbersSavesFromOne) {
  EXPECT_EQ(open(1), 1u);
  publish_rest();
  producer_.seal();
  EXPECT_EQ(open(1), 2u);
  EXPECT_EQ(producer_.current_save(), 2u);
}

TEST_F(ProducerTest, WritesTheTablesBeforeAnybodyCanSeeThem) {
  bool filled = false;
  const std::uint64_t save = producer_.open(file_of(kBlock, 100), [&](std::span<std::byte> plan) {
    filled = true;
    EXPECT_EQ(plan.size(), 100u);
    EXPECT_EQ(ring_.producer_word(1).save, 0u);
    plan[99] = std::byte{5};
  });
  EXPECT_TRUE(filled);
  EXPECT_EQ(ring_.producer_word(save).state, Intent::staging);
  EXPECT_EQ(ring_.view().plan_area()[ring_.view().record(save).plan_position + 99], std::byte{5});
}

TEST_F(ProducerTest, LeavesNoNumberOutWhereTheTablesCannotBeWritten) {
  save_and_finish(1);
  EXPECT_THROW((void)producer_.open(file_of(kBlock, 100),
                                    [](std::span<std::byte>) { throw std::bad_alloc(); }),
               std::bad_alloc);
  EXPECT_FALSE(producer_.is_open());
  EXPECT_EQ(ring_.producer_word(2).save, 0u);
  EXPECT_EQ(open(1), 2u);
}

TEST_F(ProducerTest, GivesEachBlockItsPlaceInTheFile) {
  producer_.open(file_of(2 * kBlock + 5), kNoTables);
  for (std::uint64_t i = 0; i < 3; ++i) {
    auto claim = producer_.try_claim();
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->file_offset(), i * kBlock);
    EXPECT_EQ(claim->bytes().size(), i < 2 ? kBlock : 5);
    EXPECT_EQ(claim->bytes().data(), ring_.view().block(i).data());
    claim->publish();
  }
  EXPECT_TRUE(producer_.all_claimed());
  EXPECT_FALSE(producer_.try_claim());
}

TEST_F(ProducerTest, PublishesInAnyOrder) {
  open(3);
  auto first = producer_.try_claim();
  auto second = producer_.try_claim();
  auto third = producer_.try_claim();
  third->publish();
  EXPECT_EQ(published(2), 3u);
  EXPECT_EQ(published(0), 0u);
  first->publish();
  EXPECT_EQ(published(0), 1u);
  EXPECT_EQ(published(1), 0u);
  second->publish();
  EXPECT_EQ(published(1), 2u);
}

TEST_F(ProducerTest, ClaimsNoSlotBeforeItsBlockWasReleased) {
  open(9);
  for (int i = 0; i < 4; ++i) producer_.try_claim()->publish();
  EXPECT_FALSE(producer_.try_claim());
  ring_.set_tail(1);
  auto fifth = producer_.try_claim();
  ASSERT_TRUE(fifth);
  EXPECT_EQ(fifth->bytes().data(), ring_.view().block(0).data());
  EXPECT_EQ(fifth->file_offset(), 4 * kBlock);
  EXPECT_EQ(published(0), 1u) << "the word of the earlier lap stays until this block is published";
  EXPECT_FALSE(producer_.try_claim());
  fifth->publish();
  EXPECT_EQ(published(4), 5u);
}

TEST_F(ProducerTest, SealsOnlyWhenEveryBlockIsPublished) {
  EXPECT_THROW(producer_.seal(), Error);
  open(2);
  EXPECT_THROW(producer_.seal(), Error);
  auto first = producer_.try_claim();
  auto second = producer_.try_claim();
  second->publish();
  EXPECT_THROW(producer_.seal(), Error);
  EXPECT_EQ(ring_.producer_word(1).state, Intent::staging);
  first->publish();
  producer_.seal();
  EXPECT_EQ(ring_.producer_word(1).state, Intent::sealed);
  EXPECT_EQ(ring_.view().record(1).end_position, 2u);
  EXPECT_FALSE(producer_.is_open());
  EXPECT_THROW(producer_.seal(), Error);
}

TEST_F(ProducerTest, ADroppedClaimIsVoidAndItsSaveCannotBeSealed) {
  open(2);
  producer_.try_claim()->publish();
  { const auto dropped = producer_.try_claim(); }
  EXPECT_EQ(published(1), 2u);
  EXPECT_EQ(ring_.view().slot(0).voided, 0u);
  EXPECT_EQ(ring_.view().slot(1).voided, 1u);
  EXPECT_THROW(producer_.seal(), Error);
  EXPECT_EQ(ring_.producer_word(1).state, Intent::staging);
  producer_.abort();
  EXPECT_EQ(ring_.producer_word(1).state, Intent::aborted);
}

TEST_F(ProducerTest, AVoidBlockOfAnEarlierSaveHarmsNoLaterOne) {
  open(1);
  { const auto dropped = producer_.try_claim(); }
  producer_.abort();
  ring_.set_tail(1);
  ring_.set_finished(1);
  open(4);
  publish_rest();
  EXPECT_EQ(ring_.view().slot(0).voided, 0u);
  producer_.seal();
  EXPECT_EQ(ring_.producer_word(2).state, Intent::sealed);
}

TEST_F(ProducerTest, AMovedClaimIsPublishedOnce) {
  open(2);
  auto claim = producer_.try_claim();
  {
    BlockClaim moved(std::move(*claim));
    claim.reset();
    EXPECT_EQ(published(0), 0u) << "a claim that was moved from must not publish";
    moved.publish();
  }
  EXPECT_EQ(published(0), 1u);
  EXPECT_EQ(ring_.view().slot(0).voided, 0u);
}

TEST_F(ProducerTest, AbortsOnlyWhenEveryCopyHasEnded) {
  EXPECT_THROW(producer_.abort(), Error);
  open(4);
  producer_.try_claim()->publish();
  auto copying = producer_.try_claim();
  EXPECT_THROW(producer_.abort(), Error);
  EXPECT_EQ(ring_.producer_word(1).state, Intent::staging);
  copying->publish();
  producer_.abort();
  EXPECT_EQ(ring_.producer_word(1).state, Intent::aborted);
  EXPECT_EQ(ring_.view().record(1).end_position, 2u) << "it ends where it got to";
  EXPECT_FALSE(producer_.try_claim());
}

TEST_F(ProducerTest, AbandonsASaveThoughACopyMayNeverEnd) {
  open(4);
  producer_.try_claim()->publish();
  auto copying = producer_.try_claim();
  std::thread([&] { producer_.abandon(1); }).join();
  EXPECT_EQ(ring_.producer_word(1).state, Intent::aborted);
  EXPECT_EQ(ring_.view().record(1).end_position, 4u) << "behind whatever may be claimed";
  copying->publish();  // it has ended after all
  EXPECT_EQ(ring_.producer_word(1).state, Intent::aborted);
}

TEST_F(ProducerTest, TheNextSaveBeginsWhereTheAbortedOneEnded) {
  open(4);
  producer_.try_claim()->publish();
  producer_.abort();
  const std::uint64_t next = open(2);
  EXPECT_EQ(ring_.view().record(next).first_position, 1u);
  auto claim = producer_.try_claim();
  EXPECT_EQ(claim->file_offset(), 0u);
  EXPECT_EQ(claim->bytes().data(), ring_.view().block(1).data());
  claim->publish();
}

TEST_F(ProducerTest, OpensOneSaveAtATime) {
  open(1);
  EXPECT_THROW(open(1), Error);
  EXPECT_EQ(ring_.producer_word(1).state, Intent::staging);
}

TEST_F(ProducerTest, RefusesASaveOfNoBytes) {
  EXPECT_THROW(producer_.open(file_of(0), kNoTables), Error);
}

TEST_F(ProducerTest, ReusesARecordOnlyOnceItsSaveIsFinished) {
  for (int i = 0; i < 3; ++i) {  // as many as there are records
    EXPECT_TRUE(producer_.can_open(0));
    open(1);
    publish_rest();
    producer_.seal();
  }
  EXPECT_FALSE(producer_.can_open(0));
  EXPECT_THROW(open(1), Error);
  // Committed and released, but a consumer that starts now would still look at the record.
  ring_.set_tail(3);
  ring_.set_consumer_word(1, Progress::committed);
  EXPECT_FALSE(producer_.can_open(0));
  ring_.set_finished(1);
  EXPECT_TRUE(producer_.can_open(0));
  EXPECT_EQ(open(1), 4u);
  publish_rest();
  producer_.seal();
  EXPECT_FALSE(producer_.can_open(0)) << "save 2 is not finished";
}

TEST_F(ProducerTest, AFailedSaveKeepsItsRecordAndTablesUntilItsBlocksAreReleased) {
  producer_.open(file_of(2 * kBlock, 256), kNoTables);  // the whole plan area
  publish_rest();
  ring_.set_consumer_word(1, Progress::failed);
  EXPECT_TRUE(producer_.current_failed());
  producer_.abort();
  EXPECT_FALSE(producer_.can_open(64));
  ring_.set_tail(2);
  EXPECT_FALSE(producer_.can_open(64));
  ring_.set_finished(1);
  EXPECT_TRUE(producer_.can_open(64));
}

TEST_F(ProducerTest, TakesAnotherSavesOutcomeInItsRecordForNothing) {
  for (int i = 0; i < 3; ++i) save_and_finish(1);
  ring_.set_consumer_word(1, Progress::failed);
  ring_.set_finished(3);
  EXPECT_EQ(open(2), 4u);  // in the record of save 1
  EXPECT_FALSE(producer_.current_failed());
  ring_.set_consumer_word(4, Progress::open);
  EXPECT_FALSE(producer_.current_failed());
  ring_.set_consumer_word(4, Progress::failed);
  EXPECT_TRUE(producer_.current_failed());
}

TEST_F(ProducerTest, SaysWhetherTablesFitAtAll) {
  EXPECT_TRUE(producer_.fits(256));
  EXPECT_FALSE(producer_.fits(257));
  EXPECT_FALSE(producer_.can_open(257));
  EXPECT_TRUE(producer_.fits(0));
}

TEST_F(ProducerTest, TablesNeverWrapAndNeverOverlapThoseInUse) {
  const auto place = [&](std::uint64_t save) { return ring_.view().record(save).plan_position; };
  const auto save = [&](std::uint64_t plan_bytes) {
    const std::uint64_t number = producer_.open(file_of(kBlock, plan_bytes), kNoTables);
    publish_rest();
    producer_.seal();
    return number;
  };
  EXPECT_EQ(place(save(128)), 0u);
  EXPECT_EQ(place(save(65)), 128u);  // takes 128
  EXPECT_FALSE(producer_.can_open(1)) << "the area is full";
  finish(1);
  EXPECT_TRUE(producer_.can_open(128));
  EXPECT_FALSE(producer_.can_open(129)) << "save 2 still has its tables behind the first 128";
  EXPECT_EQ(place(save(64)), 0u);
  EXPECT_TRUE(producer_.can_open(64)) << "a third record and 64 bytes are free";
  finish(2);
  // 64 to 256 is free, and so much in one piece.
  EXPECT_TRUE(producer_.can_open(192));
  EXPECT_FALSE(producer_.can_open(193));
  finish(3);
  EXPECT_TRUE(producer_.can_open(256)) << "nobody looks at any table: all of it is free";
}

TEST_F(ProducerTest, SkipsTheRestOfALapThatIsTooShortForTheTables) {
  const auto save = [&](std::uint64_t plan_bytes) {
    const std::uint64_t number = producer_.open(file_of(kBlock, plan_bytes), kNoTables);
    publish_rest();
    producer_.seal();
    return number;
  };
  save(128);
  save(64);  // ends at 192
  EXPECT_FALSE(producer_.can_open(128));
  finish(1);
  EXPECT_EQ(ring_.view().record(save(128)).plan_position, 0u);
  EXPECT_FALSE(producer_.can_open(64)) << "the skipped rest counts as used";
}

TEST_F(ProducerTest, WakesAConsumerThatSleepsAndNoOther) {
  open(4);
  EXPECT_FALSE(rung(ring_.bells().data));
  producer_.try_claim()->publish();
  EXPECT_FALSE(rung(ring_.bells().data));
  ring_.view().consumer().data_sleeping = 1;
  producer_.try_claim()->publish();
  EXPECT_TRUE(rung(ring_.bells().data));
  os::clear_bell(ring_.bells().data);
  { const auto dropped = producer_.try_claim(); }
  EXPECT_TRUE(rung(ring_.bells().data)) << "for a void block";
  os::clear_bell(ring_.bells().data);
  producer_.abort();
  EXPECT_TRUE(rung(ring_.bells().data)) << "for the end of the save";
  os::clear_bell(ring_.bells().data);
  open(1);
  EXPECT_TRUE(rung(ring_.bells().data)) << "for a new save";
}

TEST_F(ProducerTest, WaitsForASlotUntilThereIsOneOrTheSaveFailsOrItIsStopped) {
  const os::UniqueFd stop = os::make_eventfd();
  open(9);
  EXPECT_TRUE(producer_.wait_for_slot(stop.get(), os::Deadline::after(kFarSecs)));
  for (int i = 0; i < 4; ++i) producer_.try_claim()->publish();
  EXPECT_FALSE(producer_.wait_for_slot(stop.get(), os::Deadline::after(0)));
  ring_.set_tail(1);
  EXPECT_TRUE(producer_.wait_for_slot(stop.get(), os::Deadline::after(kFarSecs)));
  producer_.try_claim()->publish();
  ring_.set_consumer_word(1, Progress::failed);
  EXPECT_TRUE(producer_.wait_for_slot(stop.get(), os::Deadline::after(kFarSecs)));
  ring_.set_consumer_word(1, Progress::open);
  os::ring_bell(stop.get());
  EXPECT_FALSE(producer_.wait_for_slot(stop.get(), os::Deadline::after(kFarSecs)));
  EXPECT_EQ(ring_.view().producer().space_sleeping, 0u);
}

TEST_F(ProducerTest, WaitsForARecordUntilOneIsFree) {
  const os::UniqueFd stop = os::make_eventfd();
  for (int i = 0; i < 3; ++i) {
    open(1);
    publish_rest();
    producer_.seal();
  }
  EXPECT_FALSE(producer_.wait_for_record(0, stop.get(), os::Deadline::after(0)));
  ring_.set_finished(1);
  EXPECT_TRUE(producer_.wait_for_record(0, stop.get(), os::Deadline::after(kFarSecs)));
  EXPECT_TRUE(producer_.can_open(0));
}

TEST_F(ProducerTest, RemembersWhenItLastPublished) {
  EXPECT_EQ(producer_.last_publish_ns(), 0u);
  const std::uint64_t before = os::monotonic_ns();
  open(1);
  producer_.try_claim()->publish();
  EXPECT_GE(producer_.last_publish_ns(), before);
  EXPECT_LE(producer_.last_publish_ns(), os::monotonic_ns());
}

class PlanAreaTest : public ProducerTest {
 protected:
  PlanAreaTest() : ProducerTest({kBlock, 64, 9, 4096}) {}
};

TEST_F(PlanAreaTest, NoTwoSavesInFlightShareATable) {
  std::mt19937_64 random(20240607);
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> in_use;  // by save: begin, end
  int opened = 0;
  int full = 0;
  for (int step = 0; step < 20'000; ++step) {
    if (!in_use.empty() && random() % 3 == 0) {
      finish(in_use.begin()->first);
      in_use.erase(in_use.begin());
      continue;
    }
    const std::uint64_t bytes = random() % 1800;
    if (!producer_.can_open(bytes)) {
      ++full;
      ASSERT_FALSE(in_use.empty()) << "nothing is in flight and yet there is no room";
      finish(in_use.begin()->first);
      in_use.erase(in_use.begin());
      continue;
    }
    const std::uint64_t save = producer_.open(file_of(kBlock, bytes), kNoTables);
    publish_rest();
    producer_.seal();
    const std::uint64_t begin = ring_.view().record(save).plan_position;
    ASSERT_EQ(begin % kCacheLine, 0u);
    ASSERT_LE(begin + bytes, 4096u);
    for (const auto& [other, range] : in_use) {
      ASSERT_TRUE(begin + bytes <= range.first || range.second <= begin)
          << "tables of saves " << save << " and " << other;
    }
    in_use[save] = {begin, begin + bytes};
    ASSERT_LE(in_use.size(), 9u);
    ++opened;
  }
  EXPECT_GT(opened, 5'000);
  EXPECT_GT(full, 1'000);
}

}  // namespace
}  // namespace ckptring::ring::test
