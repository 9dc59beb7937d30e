// Both ends of the ring at work in one process and on one mapping, so that the thread sanitizer
// sees every edge that is missing. What is copied has sizes that are known only at run time, and
// everything that is read is compared with what belongs there.
#include "ring/mini_drain.h"
#include "ring/ring_memory.h"
#include "ring/segment.h"

#include <fcntl.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace ckptring::ring::test {
namespace {

constexpr double kStuckSecs = 60;
constexpr Geometry kTight{kBlock, 6, 3, 1024};

/// A wait that does not end is a lost wake-up; nothing can be unwound then.
void must(bool moved, const char* waiting_for) {
  if (moved) return;
  (void)std::fprintf(stderr, "nothing moved for %.0f s while waiting for %s\n", kStuckSecs,
                     waiting_for);
  std::abort();
}

struct Cut {};  // a consumer that dies here

/// Remembers which parts of which file were written. Outlives consumers, like a disk.
class MemoryDisk final : public Disk {
 public:
  void begin(std::uint64_t save) override { (void)files_[save]; }
  void write(std::uint64_t save, std::uint64_t offset, std::span<const std::byte> bytes) override {
    auto& file = files_[save];
    file.resize(std::max(file.size(), static_cast<std::size_t>(offset) + bytes.size()));
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void commit(std::uint64_t save) override {
    if (const auto found = files_.find(save); found != files_.end()) {
      committed_[save] = std::move(found->second);
      files_.erase(found);
    }
  }
  void undo(std::uint64_t save) override { files_.erase(save); }

  [[nodiscard]] const auto& committed() const { return committed_; }
  [[nodiscard]] bool has_leftovers() const { return !files_.empty(); }

 private:
  std::map<std::uint64_t, std::vector<std::byte>> files_;
  std::map<std::uint64_t, std::vector<std::byte>> committed_;
};

enum class Ending { seal, abort_early, drop_a_claim };

struct Job {
  std::uint64_t blocks;
  std::uint64_t bytes;
  Ending ending;
  std::uint64_t stop_at;  ///< block of the early end
};

Job random_job(std::mt19937_64& random) {
  Job job{};
  job.blocks = 1 + random() % (3 * kTight.slot_count);
  job.bytes = (job.blocks - 1) * kBlock + 1 + random() % kBlock;
  const auto dice = random() % 6;
  job.ending = dice == 0 ? Ending::abort_early : dice == 1 ? Ending::drop_a_claim : Ending::seal;
  job.stop_at = random() % job.blocks;
  return job;
}

class RingStress : public ::testing::TestWithParam<int> {
 protected:
  /// Stages one save with `threads` threads, as a stager would.
  void stage(Producer& producer, const Job& job, int threads, std::uint64_t seed) {
    must(producer.wait_for_record(Tables::bytes_for(job.blocks), -1,
                                  os::Deadline::after(kStuckSecs)),
         "a record");
    const std::uint64_t next = producer.current_save() + 1;
    const std::uint64_t save =
        producer.open(stress_file(job.blocks, job.bytes), [&](std::span<std::byte> memory) {
          const Tables tables(memory);
          for (std::size_t i = 0; i < tables.constants.size(); ++i) {
            tables.constants[i] = Tables::constant(next, i);
          }
          std::fill(tables.ledger.begin(), tables.ledger.end(), 0);
        });
    std::mutex claiming;
    bool ended = false;
    const auto next_claim = [&]() -> std::optional<BlockClaim> {
      const std::scoped_lock lock(claiming);
      while (!ended && !producer.all_claimed() && !producer.current_failed()) {
        if (auto claim = producer.try_claim()) {
          if (job.ending == Ending::abort_early && claim->file_offset() == job.stop_at * kBlock) {
            ended = true;
          }
          return claim;
        }
        must(producer.wait_for_slot(-1, os::Deadline::after(kStuckSecs)), "a slot");
      }
      ended = true;
      return std::nullopt;
    };
    const auto copy = [&](std::uint64_t thread_seed) {
      std::mt19937_64 random(thread_seed);
      while (auto claim = next_claim()) {
        if (job.ending == Ending::drop_a_claim && claim->file_offset() == job.stop_at * kBlock) {
          claim.reset();  // dropped: a copy failed. Not under the lock: its holder may wait for us
          const std::scoped_lock lock(claiming);
          ended = true;
          continue;
        }
        const auto bytes = contents_of(save, claim->file_offset(), claim->bytes().size());
        if (random() % 4 == 0) std::this_thread::yield();
        std::memcpy(claim->bytes().data(), bytes.data(), bytes.size());
        claim->publish();
      }
    };
    std::vector<std::thread> copiers;
    for (int i = 1; i < threads; ++i) {
      copiers.emplace_back(copy, seed + static_cast<std::uint64_t>(i));
    }
    copy(seed);
    for (std::thread& copier : copiers) copier.join();
    if (job.ending == Ending::seal && producer.all_claimed()) {
      producer.seal();
    } else {
      producer.abort();
    }
  }

  /// Consumers, one after the other, each cut off after a random number of steps.
  void run_consumers(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::uint32_t incarnation = 1;; ++incarnation) {
      bool done = false;
      std::uint64_t life = 1 + random() % 90;
      std::thread one([&, drain_seed = random()] {
        try {
          MiniDrain drain(ring_.view(), ring_.bells(), disk_, -1, drain_seed, [&life] {
            if (--life == 0) throw Cut{};
          });
          drain.run(incarnation);
          done = true;
        } catch (const Cut&) {
        }
      });
      one.join();
      incarnations_ = incarnation;
      if (done) return;
    }
  }

  /// As the trainer's supervisor: waits for each outcome in turn.
  Outcome wait_for_outcome(std::uint64_t save, Progress& progress) {
    const Record& record = ring_.view().record(save);
    must(sleep_until(
             ring_.view().supervisor().result_sleeping, ring_.bells().result,
             [&] {
               // OUTCOME, DOORBELL.
               const auto word =
                   Word<Progress>::unpack(record.consumer_word.load(std::memory_order_seq_cst));
               progress = word.state;
               return word.save == save && is_terminal(word.state);
             },
             {}, os::Deadline::after(kStuckSecs)),
         "an outcome");
    return record.outcome;
  }

  RingMemory ring_{kTight};
  MemoryDisk disk_;
  std::uint32_t incarnations_ = 0;
};

TEST_P(RingStress, EverySaveArrivesWholeOrNotAtAllWhoeverDies) {
  constexpr std::uint64_t kSaves = 120;
  const int threads = GetParam();
  std::mt19937_64 random(static_cast<std::uint64_t>(threads) * 7919);
  std::vector<Job> jobs;
  for (std::uint64_t i = 0; i < kSaves; ++i) jobs.push_back(random_job(random));

  std::thread consumers([this, seed = random()] { run_consumers(seed); });
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t delivered = 0;
  std::vector<Progress> outcomes;
  std::thread supervisor([&] {
    for (std::uint64_t save = 1; save <= kSaves; ++save) {
      Progress progress{};
      const Outcome outcome = wait_for_outcome(save, progress);
      EXPECT_EQ(outcome.drain_began_ns, save);
      EXPECT_EQ(outcome.error_code == 0, progress == Progress::committed);
      const std::scoped_lock lock(mutex);
      outcomes.push_back(progress);
      delivered = save;
      changed.notify_all();
    }
  });
  Producer producer(ring_.view(), ring_.bells());
  for (std::uint64_t save = 1; save <= kSaves; ++save) {
    {
      // One record more than saves in flight: an outcome is fetched before its record is reused.
      std::unique_lock lock(mutex);
      must(changed.wait_for(lock, std::chrono::duration<double>(kStuckSecs),
                            [&] { return delivered + kTight.record_count - 1 >= save; }),
           "an outcome to be fetched");
    }
    stage(producer, jobs[save - 1], threads, random());
  }
  supervisor.join();
  ring_.view().supervisor().shutdown.store(1, std::memory_order_seq_cst);
  ring_if_asleep(ring_.view().consumer().data_sleeping, ring_.bells().data);
  consumers.join();

  std::uint64_t committed = 0;
  for (std::uint64_t save = 1; save <= kSaves; ++save) {
    const Job& job = jobs[save - 1];
    const Progress outcome = outcomes[save - 1];
    if (job.ending == Ending::seal && !MiniDrain::fails(save)) {
      EXPECT_EQ(outcome, Progress::committed) << "save " << save;
    } else {
      EXPECT_NE(outcome, Progress::committed) << "save " << save;
    }
    const auto file = disk_.committed().find(save);
    ASSERT_EQ(file != disk_.committed().end(), outcome == Progress::committed) << "save " << save;
    if (outcome != Progress::committed) continue;
    ++committed;
    EXPECT_EQ(file->second, contents_of(save, 0, static_cast<std::size_t>(job.bytes)));
  }
  EXPECT_FALSE(disk_.has_leftovers());
  EXPECT_GT(committed, kSaves / 3);
  EXPECT_GT(incarnations_, 20u);
  EXPECT_EQ(ring_.finished(), kSaves);
}

INSTANTIATE_TEST_SUITE_P(CopyThreads, RingStress, ::testing::Values(2, 3, 4));

/// Three saves in a row, of which the middle one ends in `ending`, all staged before the consumer
/// starts. It dies after `life` steps, the second after `second_life`, and a third one finishes
/// the work.
/// @return whether the first one lived to its end
bool die_after(std::uint64_t life, std::uint64_t second_life, Ending ending,
               std::uint64_t middle_save) {
  RingMemory ring({kBlock, 8, 4, 1024});
  MemoryDisk disk;
  Producer producer(ring.view(), ring.bells());
  const std::uint64_t first = middle_save - 1;
  // Numbers decide which saves fail, so count up to the wanted one.
  for (std::uint64_t save = 1; save < first; ++save) {
    producer.open(stress_file(1, 1), [&](std::span<std::byte> memory) {
      Tables(memory).constants[0] = Tables::constant(save, 0);
    });
    producer.abort();
    Consumer consumer(ring.view(), ring.bells());
    (void)consumer.next_save();
    consumer.set_progress(save, Progress::aborted);
    EXPECT_FALSE(consumer.next_save());
  }
  for (std::uint64_t save = first; save < first + 3; ++save) {
    constexpr std::uint64_t kBytes = kBlock + 100;
    producer.open(stress_file(2, kBytes), [&](std::span<std::byte> memory) {
      const Tables tables(memory);
      for (std::size_t i = 0; i < 2; ++i) tables.constants[i] = Tables::constant(save, i);
      std::fill(tables.ledger.begin(), tables.ledger.end(), 0);
    });
    const bool whole = save != middle_save || ending == Ending::seal;
    while (auto claim = producer.try_claim()) {
      const auto bytes = contents_of(save, claim->file_offset(), claim->bytes().size());
      std::memcpy(claim->bytes().data(), bytes.data(), bytes.size());
      claim->publish();
      if (!whole) break;
    }
    if (!whole && ending == Ending::drop_a_claim) (void)producer.try_claim();  // void
    whole ? producer.seal() : producer.abort();
  }
  ring.view().supervisor().shutdown = 1;
  const auto lives = [&](std::uint64_t steps, std::uint32_t incarnation) {
    try {
      MiniDrain(ring.view(), ring.bells(), disk, -1, steps, [left = steps]() mutable {
        if (--left == 0) throw Cut{};
      }).run(incarnation);
      return true;
    } catch (const Cut&) {
      return false;
    }
  };
  const bool lived = lives(life, 1);
  (void)lives(second_life, 2);
  MiniDrain(ring.view(), ring.bells(), disk, -1, 0, [] {}).run(3);

  for (std::uint64_t save = first; save < first + 3; ++save) {
    const bool whole = (save != middle_save || ending == Ending::seal) && !MiniDrain::fails(save);
    const auto file = disk.committed().find(save);
    EXPECT_EQ(file != disk.committed().end(), whole)
        << "save " << save << ", steps " << life << " and " << second_life;
    if (file != disk.committed().end()) {
      EXPECT_EQ(file->second, contents_of(save, 0, kBlock + 100));
    }
    EXPECT_EQ(is_terminal(ring.consumer_word(save).state), true);
    EXPECT_EQ(ring.consumer_word(save).state == Progress::committed, whole);
  }
  EXPECT_FALSE(disk.has_leftovers());
  EXPECT_EQ(ring.finished(), first + 2);
  return lived;
}

class DeathAtEveryStep : public ::testing::TestWithParam<std::pair<Ending, std::uint64_t>> {};

TEST_P(DeathAtEveryStep, ASuccessorFinishesTheWorkEvenIfTheNextOneDiesTooEarly) {
  constexpr std::uint64_t kSecondLives = 8;  // enough to get through what a restart does first
  const auto [ending, save] = GetParam();
  std::uint64_t steps = 0;
  for (bool lived = false; !lived;) {
    ++steps;
    ASSERT_LT(steps, 1000u);
    for (std::uint64_t second = 1; second <= kSecondLives; ++second) {
      lived = die_after(steps, second, ending, save);
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GT(steps, 20u);
}

INSTANTIATE_TEST_SUITE_P(OfAnySave, DeathAtEveryStep,
                         ::testing::Values(std::pair{Ending::seal, 5u},
                                           std::pair{Ending::abort_early, 5u},
                                           std::pair{Ending::drop_a_claim, 5u},
                                           std::pair{Ending::seal, 3u},  // fails on the disk
                                           std::pair{Ending::abort_early, 3u}));

// To the thread sanitizer, what is done through another mapping is done by another process.
TEST(RingSlots, MayBeFilledByAnotherThreadInTheNextLap) {
  const Geometry geometry{kBlock, 2, 2, 256};
  const Segment trainers = Segment::create(geometry, {});
  const Segment helpers = Segment::attach(os::UniqueFd(::fcntl(trainers.fd(), F_DUPFD_CLOEXEC, 0)));
  const os::UniqueFd bell = os::make_eventfd();
  Producer producer(trainers.view(), {bell.get(), bell.get(), bell.get()});
  const std::uint64_t blocks = 2 * geometry.slot_count;
  producer.open(file_of(blocks * kBlock), [](std::span<std::byte>) {});

  std::vector<std::jthread> threads;  // none is joined before all have published
  for (std::uint64_t position = 0; position < blocks; ++position) {
    std::optional<BlockClaim> claim = producer.try_claim();
    ASSERT_TRUE(claim);
    threads.emplace_back(
        [position](BlockClaim filled) {
          std::ranges::fill(filled.bytes(), static_cast<std::byte>(position));
          filled.publish();
        },
        *std::move(claim));
    const Slot& slot = helpers.view().slot(position);
    while (slot.published.load(std::memory_order_seq_cst) != position + 1) {
      std::this_thread::yield();
    }
    EXPECT_EQ(helpers.view().block(position).back(), static_cast<std::byte>(position));
    helpers.view().consumer().tail.store(position + 1, std::memory_order_seq_cst);
  }
}

}  // namespace
}  // namespace ckptring::ring::test
