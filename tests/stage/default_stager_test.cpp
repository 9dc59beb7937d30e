#include "stage/default_stager.h"

#include "base/align.h"
#include "ring/consumer.h"
#include "ring/ring_memory.h"
#include "stage/random_plan.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace ckptring::stage::test {
namespace {

using ring::Consumer;
using ring::Geometry;
using ring::Intent;
using ring::Producer;
using ring::Progress;
using ring::test::kBlock;
using ring::test::RingMemory;

constexpr double kStuckSecs = 60;

CheckpointStagerConfig with_threads(unsigned count) {
  CheckpointStagerConfig config;
  config.copy_threads = count;
  return config;
}

/// Takes and releases the blocks of a save, in order, until `more` says no.
class Drainer {
 public:
  Drainer(const RingMemory& ring, std::uint64_t save,
          std::function<bool(Consumer&, std::uint64_t taken)> more)
      : consumer_(ring.view(), ring.bells()),
        save_(save),
        more_(std::move(more)),
        thread_([this] { run(); }) {}
  ~Drainer() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  Bytes file;  // after join

 private:
  void run() {
    for (std::uint64_t taken = 0; more_(consumer_, taken); ++taken) {
      while (true) {
        if (const auto block = consumer_.try_take(save_)) {
          const auto bytes = block->memory.first(static_cast<std::size_t>(block->size));
          file.insert(file.end(), bytes.begin(), bytes.end());
          consumer_.complete(block->position);
          break;
        }
        if (!consumer_.sleep([this] { return consumer_.can_take(save_); }, {},
                             os::Deadline::after(kStuckSecs))) {
          ADD_FAILURE() << "no block arrived";
          return;
        }
      }
    }
  }
  Consumer consumer_;
  std::uint64_t save_;
  std::function<bool(Consumer&, std::uint64_t)> more_;
  std::thread thread_;
};

class StagerTest : public ::testing::Test {
 protected:
  /// Announces a save of this plan.
  std::uint64_t open(const plan::FilePlan& plan) {
    return producer_.open(ring::test::file_of(plan.total_bytes()), [](auto) {});
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
    const StageResult result = stager.stage(producer_, file.plan, file.sources(), stop_.get());
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
  const StageResult result = stager.stage(producer_, file.plan, file.sources(), stop_.get());
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
  const StageResult result = stager.stage(producer_, file.plan, file.sources(), stop_.get());
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
  const StageResult result = stager.stage(producer_, file.plan, file.sources(), stop_.get());
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
  EXPECT_FALSE(stager.stage(producer_, file.plan, file.sources(), stop_.get()).complete);
  producer_.abort();
  EXPECT_EQ(ring_.view().record(save).end_position.load(), 0u);
}

TEST_F(StagerTest, RefusesANonsenseNumberOfThreads) {
  EXPECT_THROW(DefaultStager{with_threads(257)}, Error);
  const DefaultStager automatic(with_threads(0));
}

}  // namespace
}  // namespace ckptring::stage::test
