#include "stage/default_stager.h"

#include "base/align.h"
#include "ring/ring_memory.h"
#include "stage/drainer.h"
#include "stage/random_plan.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

namespace ckptring::stage::test {
namespace {

using ring::Consumer;
using ring::Geometry;
using ring::Intent;
using ring::Producer;
using ring::Progress;
using ring::test::kBlock;
using ring::test::RingMemory;

CheckpointStagerConfig with_threads(unsigned count) {
  CheckpointStagerConfig config;
  config.copy_threads = count;
  return config;
}

class StagerTest : public ::testing::Test {
 protected:
  /// Announces a save of this plan.
  std::uint64_t open(const plan::FilePlan& plan) {
    return producer_.open(ring::test::file_of(plan.total_bytes()), [](auto) {});
  }

  StageResult stage(DefaultStager& stager, const PlannedFile& file) {
    const std::vector<Source> sources = file.sources();
    return stager.stage(producer_, {.plan = file.plan, .sources = sources}, stop_.get());
  }

  RingMemory ring_{Geometry{kBlock, 3, 3, 256}};
  Producer producer_{ring_.view(), ring_.bells()};
  os::UniqueFd stop_ = os::make_eventfd();
  std::mt19937_64 random_{99};
};

class StagerThreads : public StagerTest, public ::testing::WithParamInterface<unsigned> {};

TEST_P(StagerThreads, AFileLargerThanTheRingStreamsThrough) {
  DefaultStager stager(with_threads(GetParam()));
  for (int round = 0; round < 5; ++round) {
    const PlannedFile file = random_file(random_, 40, 4 * kBlock);
    ASSERT_GT(file.plan.total_bytes(), 6 * kBlock);
    const std::uint64_t save = open(file.plan);
    const std::uint64_t blocks = base::ceil_div(file.plan.total_bytes(), kBlock);
    Drainer drainer(ring_, save, [=](Consumer&, std::uint64_t taken) { return taken < blocks; });
    const StageResult result = stage(stager, file);
    EXPECT_TRUE(result.complete);
    producer_.seal();
    drainer.join();
    ASSERT_EQ(drainer.file, file.image);
    ring_.set_consumer_word(save, Progress::committed);
    ring_.set_finished(save);
  }
}

TEST_P(StagerThreads, EndsWhenTheConsumerFailsInTheMiddle) {
  DefaultStager stager(with_threads(GetParam()));
  const PlannedFile file = random_file(random_, 60, 4 * kBlock);
  ASSERT_GT(file.plan.total_bytes(), 20 * kBlock);
  const std::uint64_t save = open(file.plan);
  Drainer drainer(ring_, save, [=](Consumer& consumer, std::uint64_t taken) {
    if (taken < 7) return true;
    consumer.set_progress(save, Progress::failed);
    return false;
  });
  const StageResult result = stage(stager, file);
  EXPECT_FALSE(result.complete);
  producer_.abort();  // no claim is out
  EXPECT_EQ(ring_.producer_word(save).state, Intent::aborted);
  EXPECT_LE(ring_.view().record(save).end_position.load(), 7u + 3u);
}

TEST_P(StagerThreads, EndsWhenItIsStoppedWhileTheRingIsFull) {
  DefaultStager stager(with_threads(GetParam()));
  const PlannedFile file = random_file(random_, 60, 4 * kBlock);
  const std::uint64_t save = open(file.plan);
  os::ring_bell(stop_.get());  // nobody drains
  const StageResult result = stage(stager, file);
  EXPECT_FALSE(result.complete);
  producer_.abort();
  EXPECT_EQ(ring_.view().record(save).end_position.load(), 3u);
  EXPECT_EQ(ring_.view().slot(2).voided, 0u);
}

INSTANTIATE_TEST_SUITE_P(Threads, StagerThreads, ::testing::Values(1u, 2u, 5u));

TEST_F(StagerTest, DoesNotStallWhenEverythingFits) {
  DefaultStager stager(with_threads(2));
  const PlannedFile file = random_file(random_, 2, kBlock);
  open(file.plan);
  const StageResult result = stage(stager, file);
  EXPECT_TRUE(result.complete);
  EXPECT_EQ(result.stalled_seconds, 0.0);
  producer_.seal();
  Bytes staged;
  for (std::uint64_t at = 0; at < base::ceil_div(file.image.size(), kBlock); ++at) {
    const auto block = ring_.view().block(at);
    staged.insert(staged.end(), block.begin(), block.end());
  }
  staged.resize(file.image.size());
  EXPECT_EQ(staged, file.image);
}

TEST_F(StagerTest, NothingIsStagedOfASaveThatHasFailedAlready) {
  DefaultStager stager(with_threads(2));
  const PlannedFile file = random_file(random_, 5, kBlock);
  const std::uint64_t save = open(file.plan);
  ring_.set_consumer_word(save, Progress::failed);
  EXPECT_FALSE(stage(stager, file).complete);
  producer_.abort();
  EXPECT_EQ(ring_.view().record(save).end_position.load(), 0u);
}

TEST_F(StagerTest, RefusesANonsenseNumberOfThreads) {
  EXPECT_THROW(DefaultStager{with_threads(257)}, Error);
  const DefaultStager automatic(with_threads(0));
}

}  // namespace
}  // namespace ckptring::stage::test
