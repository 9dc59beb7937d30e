// Checkpoint processes that stop, hang, never start or are something else: each wait ends, with the
// save done or with an error that names the cause, and the save after it works.
#include "crash/crash_test.h"
#include "crash/traced_trainer.h"
#include "support/fault_row.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

/// Where a process is stopped or hangs: the calls of a save, from its first to its last.
struct Point {
  long number;
  int nth;
  bool entering;
};
const std::vector<Point> kPoints{
    {SYS_flock, 0, false},          {SYS_fallocate, 0, true}, {SYS_io_uring_enter, 0, true},
    {SYS_io_uring_enter, 3, false}, {SYS_fsync, 0, true},     {SYS_fsync, 0, false},
    {SYS_rename, 0, true},          {SYS_rename, 0, false},   {SYS_fsync, 1, false},
};

class BadHelper : public CrashTest {
 protected:
  void SetUp() override {
    CrashTest::SetUp();
    std::string refusal = refusal_of(config().writer_config.mode);
    if (refusal.empty()) refusal = refusal_of_ptrace();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
  static CheckpointerConfig config() { return small_config(WriteMode::direct_io_uring, 4); }

  /// Acts at the nth call (from 0) of a kind, entering or leaving it.
  static Script at(long number, int nth, bool entering, Verdict verdict) {
    return [=, seen = 0](const TracedCall& call) mutable {
      const bool here = call.number == number && call.entering == entering && seen++ == nth;
      return here ? verdict : Verdict::go_on();
    };
  }

  void expect_file_of(const std::string& path, const std::string& expected) {
    const bool whole = contents_of(path + "/checkpoint_0.pt") == expected && entries_of(path) == 1;
    EXPECT_TRUE(whole) << path;
    if (!whole) ++row_.lost;
  }

  /// A save whose helper hangs at this point, and the next one.
  /// @return whether that was the only reason to lose patience: a disk may need as long for one
  ///         step, and then nothing was tested
  bool hang_at(const Point& point, double patience_secs) {
    CheckpointerConfig impatient = config();
    impatient.process_config.stall_timeout_secs = patience_secs;
    (void)undisturbed_file(path_, earlier_);
    std::atomic<bool> hangs{false};
    TracedTrainer trainer(impatient);
    trainer.meet_new_helper();
    const SaveHandle save = trainer.async().submit(job_for(path_, storages_));
    trainer.tracer().release({[&, script = at(point.number, point.nth, point.entering,
                                              Verdict::hold())](const TracedCall& call) {
      const Verdict verdict = script(call);
      if (verdict.kind == Verdict::Kind::hold) hangs = true;
      return verdict;
    }});
    const std::exception_ptr failure = save.written.error();
    const std::string seen = contents_of(path_ + "/checkpoint_0.pt");
    const bool next_written = !trainer.async().submit(job_for(path_, earlier_)).written.error();
    trainer.tracer().check();
    trainer.close();
    EXPECT_FALSE(has_children());
    if (!hangs || !next_written) return false;

    // It says `renaming` before it renames; from then on nobody but the directory can tell.
    const bool may_be_renamed = point.number == SYS_rename || point.nth == 1;
    try {
      if (failure) std::rethrow_exception(failure);
      ADD_FAILURE() << "a save without an end";
      ++row_.lost;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), may_be_renamed ? ErrorCode::outcome_unknown : ErrorCode::stalled)
          << error.what();
      EXPECT_NE(error.cause().find("nothing reached the disk for " +
                                   std::to_string(static_cast<int>(patience_secs)) + " s"),
                std::string::npos)
          << error.what();
    }
    const bool renamed = may_be_renamed && !(point.number == SYS_rename && point.entering);
    if (seen != (renamed ? expected_ : expected_earlier_)) ++row_.torn;
    expect_file_of(path_, expected_earlier_);
    return true;
  }

  const std::shared_ptr<Storages> storages_ = noise({120'000, 7}, 1);
  const std::shared_ptr<Storages> earlier_ = noise({110'000, 3}, 2);
  const std::string path_ = directory_ / "run";
  const std::string expected_ = undisturbed_file(directory_ / "expected", storages_);
  const std::string expected_earlier_ = undisturbed_file(path_, earlier_);
  FaultRow row_;
};

TEST_F(BadHelper, ThatIsStoppedIsKilledAndItsSuccessorCompletesTheSave) {
  row_.fault = "stopped (SIGSTOP) in the middle of a save";
  CheckpointerConfig impatient = config();
  impatient.process_config.stopped_timeout_secs = 0.5;
  TracedTrainer trainer(impatient);
  for (const Point& point : kPoints) {
    SCOPED_TRACE("system call " + std::to_string(point.number));
    trainer.meet_new_helper();
    const SaveHandle save = trainer.async().submit(job_for(path_, storages_));
    trainer.tracer().release({at(point.number, point.nth, point.entering, Verdict::stop())});
    ++row_.cases;
    // More than one on a machine so busy that a successor was stopped at the gate for as long.
    ASSERT_NO_THROW(EXPECT_GE(save.written.get().restarts, 1u));
    expect_file_of(path_, expected_);
    trainer.tracer().check();
  }
  trainer.close();
  EXPECT_FALSE(has_children());
  row_.report();
}

TEST_F(BadHelper, ThatHangsFailsTheSaveAsStalledAndTheNextOneWorks) {
  row_.fault = "hung in a system call";
  for (const Point& point : kPoints) {
    SCOPED_TRACE("system call " + std::to_string(point.number));
    ++row_.cases;
    EXPECT_TRUE(hang_at(point, 1) || hang_at(point, 20)) << "another step took as long, or failed";
  }
  row_.report();
}

TEST_F(BadHelper, ThatHangsDoesNotHoldUpCloseWhileStagingWaitsForRoom) {
  for (const bool in_background : {true, false}) {
    SCOPED_TRACE(in_background);
    CheckpointerConfig impatient = config();  // of nine blocks the ring holds four
    impatient.process_config.subprocess_shutdown_timeout_secs = 0.5;
    impatient.process_config.stall_timeout_secs = 30;
    impatient.staging_config.use_async_staging = in_background;
    impatient.max_saves_in_flight = 2;
    std::atomic<bool> hangs{false};
    TracedTrainer trainer(impatient);
    trainer.meet_new_helper();
    trainer.tracer().release({[&](const TracedCall& call) {
      if (!call.entering || call.number != SYS_io_uring_enter) return Verdict::go_on();
      hangs = true;
      return Verdict::hold();
    }});
    std::vector<SaveHandle> saves(2);
    std::thread saver([&] {
      // In the foreground the first one keeps the second from being begun.
      saves[0] = trainer.async().submit(job_for(path_, storages_));
      if (in_background) saves[1] = trainer.async().submit(job_for(path_, storages_));
    });
    if (in_background) saver.join();
    while (!hangs) std::this_thread::yield();
    trainer.async().close();
    if (!in_background) saver.join();
    for (const SaveHandle& save : saves) {
      if (&save != saves.data() && !in_background) break;
      try {
        (void)save.written.get();
        ADD_FAILURE() << "written by nobody";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::aborted) << error.what();
        EXPECT_NE(error.cause().find("subprocess_shutdown_timeout_secs"), std::string::npos)
            << error.what();
      }
      EXPECT_TRUE(save.staged.ready());
    }
    EXPECT_EQ(contents_of(path_ + "/checkpoint_0.pt"), expected_earlier_);
  }
}

TEST_F(BadHelper, ThatHangsWithAllInTheRingIsLeftByCloseToFinishIt) {
  CheckpointerConfig impatient = config();
  impatient.process_config.ring_bytes = 16 * kSmallBlock;
  impatient.process_config.subprocess_shutdown_timeout_secs = 0.5;
  impatient.process_config.stall_timeout_secs = 30;
  TracedTrainer trainer(impatient);
  trainer.meet_new_helper();
  trainer.tracer().release({at(SYS_fsync, 0, true, Verdict::hold())});
  const SaveHandle save = trainer.async().submit(job_for(path_, storages_));
  trainer.async().close();
  EXPECT_NO_THROW(save.staged.get());
  try {
    (void)save.written.get();
    ADD_FAILURE() << "written by nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::outcome_unknown) << error.what();
  }
}

TEST_F(BadHelper, ThatDiesWhileStartingMoreOftenThanTheBudgetFailsWithTheCauseAndTheNextSaveWorks) {
  row_.fault = "killed while starting, beyond the restart budget";
  // The dynamic linker, main, the first look at the ring.
  for (const std::uint64_t stop : {std::uint64_t{1}, std::uint64_t{60}, std::uint64_t{160}}) {
    SCOPED_TRACE("stop " + std::to_string(stop));
    TracedTrainer trainer(config());  // the default budget of five
    trainer.meet_new_helper();
    const SaveHandle save = trainer.async().submit(job_for(path_, storages_));
    // The first one lives on until the save is watched over; from then on each death counts.
    std::atomic<int> kills{0};
    const auto kill_at = [&](std::uint64_t here) {
      return [&, here](const TracedCall& call) {
        if (call.stop != here) return Verdict::go_on();
        ++kills;
        return Verdict::kill();
      };
    };
    std::deque<Script> scripts{at(SYS_io_uring_enter, 2, true, Verdict::kill())};
    for (int i = 0; i < 6; ++i) scripts.emplace_back(kill_at(stop));
    trainer.tracer().release(std::move(scripts));
    ++row_.cases;
    try {
      (void)save.written.get();
      ADD_FAILURE() << "survived more kills than allowed";
      ++row_.lost;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::process_failed);
      EXPECT_NE(error.cause().find("terminated by signal 9 (Killed) after 5 restarts"),
                std::string::npos)
          << error.what();
    }
    EXPECT_EQ(kills, 5) << "one start and five restarts, of which the first one worked";
    if (contents_of(path_ + "/checkpoint_0.pt") != expected_earlier_) ++row_.torn;
    // A new ring and a budget of its own; the dead process's temporary goes.
    trainer.tracer().release({});
    EXPECT_NO_THROW(trainer.async().submit(job_for(path_, storages_)).written.get());
    expect_file_of(path_, expected_);
    EXPECT_NO_THROW(trainer.async().submit(job_for(path_, earlier_)).written.get());
    trainer.tracer().check();
    trainer.close();
  }
  EXPECT_FALSE(has_children());
  row_.report();
}

/// What may stand where the helper should be, and what the error says then.
struct StandIn {
  std::string name;
  std::string script;  ///< empty: nothing is there
  bool executable;
  std::string cause;
  double init_timeout_secs = 60;
};

class NoHelper : public BadHelper, public ::testing::WithParamInterface<StandIn> {
 protected:
  static bool was_never_ready(const std::exception_ptr& failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const Error& error) {
      return error.cause().find("did not become ready") != std::string::npos;
    }
    return false;
  }
};

TEST_P(NoHelper, FailsTheSaveWithTheCauseAndWorksOnceThereIsOne) {
  const StandIn& stand_in = GetParam();
  row_.fault = "helper " + stand_in.name;
  const std::string program = directory_ / "program";
  if (!stand_in.script.empty()) {
    std::ofstream(program) << stand_in.script << "\n";
    std::filesystem::permissions(program, stand_in.executable ? std::filesystem::perms::owner_all
                                                              : std::filesystem::perms::owner_read);
  }
  CheckpointerConfig with_stand_in = config();
  with_stand_in.process_config.executable = program;
  with_stand_in.process_config.max_restarts = 2;
  with_stand_in.process_config.subprocess_init_timeout_secs = stand_in.init_timeout_secs;
  save::AsyncSave async(with_stand_in, {});
  for (int i = 0; i < 2; ++i) {  // and again, with a ring of its own
    ++row_.cases;
    try {
      (void)async.submit(job_for(path_, storages_)).written.get();
      ADD_FAILURE() << "written by nobody";
      ++row_.lost;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::process_failed);
      EXPECT_NE(std::string(error.what()).find(program), std::string::npos) << error.what();
      EXPECT_NE(error.cause().find(stand_in.cause), std::string::npos) << error.what();
    }
  }
  if (contents_of(path_ + "/checkpoint_0.pt") != expected_earlier_) ++row_.torn;
  EXPECT_EQ(entries_of(path_), 1);
  std::filesystem::remove(program);
  std::filesystem::create_symlink(CKPTRING_DRAIN_PATH, program);
  ++row_.cases;
  // A machine may be so busy that the right one does not start in that time either.
  std::exception_ptr failure;
  for (int attempt = 0; attempt == 0 || (attempt < 10 && was_never_ready(failure)); ++attempt) {
    failure = async.submit(job_for(path_, storages_)).written.error();
  }
  EXPECT_NO_THROW(if (failure) std::rethrow_exception(failure));
  expect_file_of(path_, expected_);
  async.close();
  EXPECT_FALSE(has_children());
  row_.report();
}

INSTANTIATE_TEST_SUITE_P(
    Helpers, NoHelper,
    ::testing::Values(StandIn{"missing", "", false, "No such file or directory"},
                      StandIn{"not_executable", "#!/bin/sh", false, "Permission denied"},
                      StandIn{"of_another_format", "no program at all", true, "Exec format error"},
                      StandIn{"of_another_version",
                              std::string("#!/bin/sh\nexec '") + CKPTRING_DRAIN_PATH +
                                  "' --ckptring-protocol=999 \"$2\"",
                              true, "the trainer version 999"},
                      StandIn{"that_exits_at_once", "#!/bin/sh\necho 'no licence' >&2; exit 3",
                              true, "exited with status 3 after 2 restarts; its last words"},
                      StandIn{"that_never_becomes_ready", "#!/bin/sh\nexec sleep 1000", true,
                              "did not become ready within 1 s", 1}),
    [](const auto& stand_in) { return stand_in.param.name; });

}  // namespace
}  // namespace ckptring::test
