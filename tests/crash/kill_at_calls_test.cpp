// The checkpoint process is killed before and after each of its system calls, from its exec on.
#include "crash/crash_test.h"
#include "crash/traced_trainer.h"
#include "support/fault_row.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

class KillAtCalls : public OfTracedTrainers<CrashTestOfModes> {
 protected:
  /// Kills at a stop, after a look at what a reader would find there.
  Script kill_at(std::uint64_t stop) {
    idle_ = false;
    return [this, stop](const TracedCall& call) {
      if (call.thread == call.process) idle_ = call.entering && call.number == SYS_ppoll;
      if (call.stop != stop) return Verdict::go_on();
      ++kills_;
      if (look_) look_();
      return Verdict::kill();
    };
  }

  /// Whether a process whose saves are written got as far as waiting for the next one, and not to
  /// the stop where it was to be killed.
  /// @param kills_before before its saves
  bool came_through(int kills_before) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (kills_ == kills_before && !idle_) {
      if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("it never idles");
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    return kills_ == kills_before;
  }

  std::atomic<int> kills_{0};
  std::atomic<bool> idle_{false};  ///< its last call is waiting for the trainer
  std::function<void()> look_;     ///< in the tracer's thread, just before each kill
};

TEST_P(KillAtCalls, OneSaveIsWholeAndTheSameWhereverItsProcessDies) {
  const std::array storages{noise({120'000, 0, 40'000, 7}, 1), noise({90'000, 3, 70'000}, 2)};
  std::array<std::string, 2> expected;
  for (std::size_t i = 0; i < 2; ++i) {
    expected[i] = undisturbed_file(directory_ / "expected", storages[i]);
  }
  FaultRow row{"killed at every system call, " + name_of(GetParam())};
  // One name again and again: whoever looks sees the old or the new file. Every third save goes
  // where directories have to be made.
  const std::string steady = directory_ / "steady";
  (void)undisturbed_file(steady, storages[1]);
  std::atomic<std::uint64_t> torn{0};
  look_ = [&] {
    const std::string seen = contents_of(steady + "/checkpoint_0.pt");
    if (seen != expected[0] && seen != expected[1]) ++torn;
  };
  const std::ptrdiff_t descriptors = open_descriptors();
  {
    TracedTrainer trainer(small_config(GetParam(), 4));
    bool undisturbed = false;
    for (std::uint64_t stop = 0; !undisturbed; ++stop) {
      trainer.meet_new_helper();
      const std::size_t which = row.cases % 2;
      const bool fresh = row.cases % 3 == 2;
      const std::string path = fresh ? directory_ / "fresh/deep" : steady;
      const SaveHandle save = trainer.async().submit(job_for(path, storages[which]));
      const int kills_before = kills_;
      trainer.tracer().release({kill_at(stop)});
      const std::exception_ptr error = save.written.error();
      undisturbed = came_through(kills_before);
      ++row.cases;
      const bool whole = !error && contents_of(path + "/checkpoint_0.pt") == expected[which] &&
                         entries_of(path) == 1;
      if (!whole) ++row.lost;
      EXPECT_TRUE(whole) << "killed at stop " << stop;
      // A process that dies right after its last word needs no successor.
      if (!error) {
        EXPECT_LE(save.written.get().restarts, undisturbed ? 0u : 1u) << "stop " << stop;
      }
      if (fresh) std::filesystem::remove_all(directory_ / "fresh");
      trainer.tracer().check();
      ASSERT_LT(row.lost, 5u);
    }
    trainer.close();
  }
  EXPECT_FALSE(has_children());
  EXPECT_EQ(open_descriptors(), descriptors);
  row.torn = torn;
  row.report();
}

TEST_P(KillAtCalls, TwoSavesInTheRingAreWholeWhereverTheirProcessDies) {
  const std::array storages{noise({80'000, 11}, 3), noise({30'000, 60'000}, 4)};
  std::array<std::string, 2> expected;
  for (std::size_t i = 0; i < 2; ++i) {
    expected[i] = undisturbed_file(directory_ / "expected", storages[i]);
  }
  FaultRow row{"killed at every system call, two saves in the ring, " + name_of(GetParam())};
  CheckpointerConfig config = small_config(GetParam(), 9);  // one and a half of these
  config.max_saves_in_flight = 2;
  TracedTrainer trainer(config);
  bool undisturbed = false;
  // Both begin before the process does; the second stays partly staged.
  for (std::uint64_t stop = 0; !undisturbed; ++stop) {
    trainer.meet_new_helper();
    const std::array paths{directory_ / "first", directory_ / "second"};
    std::vector<SaveHandle> saves;
    for (std::size_t i = 0; i < 2; ++i) {
      saves.push_back(trainer.async().submit(job_for(paths[i], storages[i])));
    }
    const int kills_before = kills_;
    trainer.tracer().release({kill_at(stop)});
    for (std::size_t i = 0; i < 2; ++i) {
      const bool whole = !saves[i].written.error() &&
                         contents_of(paths[i] + "/checkpoint_0.pt") == expected[i] &&
                         entries_of(paths[i]) == 1;
      if (!whole) ++row.lost;
      EXPECT_TRUE(whole) << "save " << i << ", killed at stop " << stop;
    }
    undisturbed = came_through(kills_before);
    ++row.cases;
    trainer.tracer().check();
    ASSERT_LT(row.lost, 5u);
  }
  trainer.close();
  EXPECT_FALSE(has_children());
  row.report();
}

TEST_P(KillAtCalls, TheSecondProcessMayDieAsWell) {
  const auto storages = noise({120'000, 0, 40'000, 7}, 5);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  const std::uint64_t cases = GetParam() == WriteMode::direct_io_uring ? 100 : 40;
  FaultRow row{"killed at pairs of system calls, " + name_of(GetParam())};
  TracedTrainer trainer(small_config(GetParam(), 4));
  // How many stops there are, from a save that is left alone.
  std::atomic<std::uint64_t> stops{0};
  trainer.meet_new_helper();
  SaveHandle save = trainer.async().submit(job_for(directory_ / "run", storages));
  trainer.tracer().release({[&](const TracedCall& call) {
    stops = call.stop + 1;
    return Verdict::go_on();
  }});
  ASSERT_NO_THROW(save.written.get());

  std::mt19937_64 random(11);
  // Where the first process comes far, the second may have nothing left to do at its point: such a
  // pair is not counted.
  std::uint64_t pairs = 0;
  for (; row.cases < cases && pairs < 10 * cases; ++pairs) {
    const std::uint64_t first = random() % stops;
    const std::uint64_t second = random() % stops;
    trainer.meet_new_helper();
    const int kills_before = kills_;
    save = trainer.async().submit(job_for(directory_ / "run", storages));
    trainer.tracer().release({kill_at(first), kill_at(second)});
    const bool whole = !save.written.error() &&
                       contents_of(directory_ / "run/checkpoint_0.pt") == expected &&
                       entries_of(directory_ / "run") == 1;
    if (!whole) ++row.lost;
    EXPECT_TRUE(whole) << "killed at stops " << first << " and " << second;
    if (kills_ - kills_before == 2) ++row.cases;
    trainer.tracer().check();
    ASSERT_LT(row.lost, 5u);
  }
  EXPECT_EQ(row.cases, cases) << "of " << pairs << " pairs, the others killed one process only";
  trainer.close();
  EXPECT_FALSE(has_children());
  row.report();
}

/// The save's call that fails before its process is killed.
struct Failure {
  long number;
  int nth;
  int errno_value;
  /// After a failed fsync the next one reports success over lost bytes: nobody may ever try again.
  bool final;
};

TEST_P(KillAtCalls, AFailureIsNotForgottenWhereverItsProcessDies) {
  const auto storages = noise({60'000, 7}, 6);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  const auto earlier = noise({50'000}, 7);
  const std::string path = directory_ / "run";
  const std::string old = undisturbed_file(path, earlier);
  FaultRow row{"killed after a failed call, " + name_of(GetParam())};
  TracedTrainer trainer(small_config(GetParam(), 8));
  for (const Failure& failure :
       {Failure{SYS_fsync, 0, EIO, true}, Failure{SYS_fsync, 1, EIO, true},
        Failure{SYS_fallocate, 0, ENOSPC, false}, Failure{SYS_rename, 0, EIO, false}}) {
    bool undisturbed = false;
    for (int calls = 1; !undisturbed; ++calls) {
      SCOPED_TRACE("system call " + std::to_string(failure.number) + " failed, killed at call " +
                   std::to_string(calls) + " after it");
      trainer.meet_new_helper();
      const SaveHandle save = trainer.async().submit(job_for(path, storages));
      const int kills_before = kills_;
      // Counted in calls of the thread that commits, from the one that failed.
      trainer.tracer().release({[this, failure, calls, failed = false, seen = 0,
                                 later = 0](const TracedCall& call) mutable {
        if (!call.entering || call.thread != call.process) return Verdict::go_on();
        if (failed && ++later == calls) {
          ++kills_;
          return Verdict::kill();
        }
        if (failed || call.number != failure.number || seen++ != failure.nth) {
          return Verdict::go_on();
        }
        failed = true;
        return Verdict::fail(failure.errno_value);
      }});
      ++row.cases;
      const std::exception_ptr error = save.written.error();
      const std::string seen = contents_of(path + "/checkpoint_0.pt");
      undisturbed = kills_ == kills_before;
      try {
        if (error) std::rethrow_exception(error);
        // A successor tried once more, and it worked.
        EXPECT_FALSE(failure.final || undisturbed) << "reported as written";
        if (failure.final || undisturbed) ++row.lost;
        if (seen != expected) ++row.torn;
      } catch (const Error& reported) {
        EXPECT_EQ(reported.errno_value(), failure.errno_value) << reported.what();
        const bool renamed = failure.nth == 1;
        if (seen != (renamed ? expected : old)) ++row.torn;
      }
      // Whatever the dead left behind is gone when its successor has gone on to another save.
      (void)trainer.async().submit(job_for(directory_ / "other", storages)).written.get();
      EXPECT_EQ(entries_of(path), 1);
      (void)trainer.async().submit(job_for(path, earlier)).written.get();
      trainer.tracer().check();
      ASSERT_LT(row.lost, 5u);
    }
  }
  trainer.close();
  EXPECT_FALSE(has_children());
  row.report();
}

INSTANTIATE_TEST_SUITE_P(WriteModes, KillAtCalls, write_modes(), mode_of_test);

}  // namespace
}  // namespace ckptring::test
