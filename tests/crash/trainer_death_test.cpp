// The trainer ends in every way that trainers end. What was staged is committed by the checkpoint
// process, which then ends by itself; what was not is undone.
#include "crash/crash_test.h"
#include "crash/trainer_process.h"
#include "save/async_save.h"
#include "support/fault_row.h"

#include <ckptring/checkpoints.h>
#include <ckptring/error.h>
#include <ckptring/log.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/file.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>

namespace ckptring::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  if (!fs::exists(directory)) return names;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_directory()) names.push_back(entry.path().lexically_relative(directory));
  }
  std::sort(names.begin(), names.end());
  return names;
}

void make_file(const std::string& path) {
  const std::ofstream file(path);
  if (!file) throw std::runtime_error("make " + path);
}

void wait_for_file(const std::string& path) {
  const auto deadline = std::chrono::steady_clock::now() + kStuck;
  while (!fs::exists(path)) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("no " + path);
    ::usleep(500);
  }
}

bool hidden(const std::string& name) { return fs::path(name).filename().string().front() == '.'; }

class TrainerDeath : public CrashTest {
 protected:
  TrainerDeath() { adopt_orphans(); }

  [[nodiscard]] std::string run() const { return directory_ / "run"; }
  [[nodiscard]] std::string file_of(int step) const {
    return run() + "/step_" + std::to_string(step) + "/checkpoint_0.pt";
  }

  /// What the trainer's save of this step must contain.
  const std::string& expected(int step) {
    std::string& file = expected_[step];
    if (file.empty()) {
      save::SyncSave sync({}, {}, {});
      file = contents_of(
          sync.run(job_for(directory_ / "expected",
                           noise({kTrainersState}, static_cast<std::uint64_t>(step)), {}, step))
              .path);
    }
    return file;
  }

  /// The checkpoint process ended by itself, with success.
  static void expect_ended(pid_t helper) {
    ASSERT_GT(helper, 0);
    const std::optional<int> status = wait_for_end(helper);
    ASSERT_TRUE(status) << "the checkpoint process goes on for ever";
    EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 0) << *status;
  }
  static void expect_no_descendants() {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }
  /// Every file under a final name is whole, and those that were promised are there.
  /// @return how many hidden files there are
  std::size_t expect_whole(int promised) {
    std::size_t leftovers = 0;
    for (const std::string& name : names_in(run())) {
      if (hidden(name)) {
        ++leftovers;
        continue;
      }
      int step = 0;
      EXPECT_EQ(std::sscanf(name.c_str(), "step_%d/checkpoint_0.pt", &step), 1) << name;
      const bool whole = contents_of(run() + "/" + name) == expected(step);
      EXPECT_TRUE(whole) << name << " is torn";
      if (!whole) ++torn_;
    }
    for (int step = 1; step <= promised; ++step) {
      const bool there = fs::exists(file_of(step));
      EXPECT_TRUE(there) << file_of(step) << " is lost";
      if (!there) ++lost_;
    }
    return leftovers;
  }

  /// Each save that was promised or looked at in this test has an expectation of its own.
  static void report(const std::string& fault, std::uint64_t cases) {
    FaultRow{fault, cases, broken_expectations()}.report();
  }

  std::map<int, std::string> expected_;
  std::uint64_t lost_ = 0;
  std::uint64_t torn_ = 0;
};

TEST_F(TrainerDeath, BeforeSealingUndoesTheSave) {
  TrainerProcess trainer("pause-unsealed", run());
  ASSERT_TRUE(trainer.read_until("unsealed 1"));
  trainer.kill_and_read();
  expect_ended(trainer.helper());
  EXPECT_FALSE(fs::exists(run())) << "directories that the save had made stay";
  expect_no_descendants();
  report("trainer killed before sealing", 1);
}

TEST_F(TrainerDeath, AfterStagingLosesNothing) {
  TrainerProcess trainer("pause-sealed", run());
  ASSERT_TRUE(trainer.read_until("staged 1"));
  trainer.kill_and_read();
  expect_ended(trainer.helper());
  EXPECT_EQ(expect_whole(1), 0u);
  expect_no_descendants();
  report("trainer killed after sealing", 1);
}

TEST_F(TrainerDeath, BetweenTwoSavesEndsTheCheckpointProcess) {
  TrainerProcess trainer("pause-between", run());
  ASSERT_TRUE(trainer.read_until("written 1"));
  trainer.kill_and_read();
  expect_ended(trainer.helper());
  EXPECT_EQ(expect_whole(1), 0u);
  expect_no_descendants();
  report("trainer killed between two saves", 1);
}

TEST_F(TrainerDeath, WhileItsSaveIsBeingCommittedLosesNothing) {
  const std::string gate = directory_ / "gate";
  ASSERT_EQ(::setenv("GATE", gate.c_str(), 1), 0);
  TrainerProcess trainer("pause-sealed", run(), HELD_COMMIT_DRAIN_PATH);
  ASSERT_TRUE(trainer.read_until("staged 1"));
  wait_for_file(gate + ".before.1.reached");
  trainer.kill_and_read();
  EXPECT_FALSE(fs::exists(file_of(1)));
  make_file(gate + ".open");
  expect_ended(trainer.helper());
  EXPECT_EQ(expect_whole(1), 0u);
  report("trainer killed during the commit", 1);
}

TEST_F(TrainerDeath, ByEveryKindOfExitWithoutCloseLosesNothing) {
  const std::vector<std::string> modes{"exit", "exit-static", "return", "throw", "abort"};
  for (const std::string& mode : modes) {
    fs::remove_all(run());
    TrainerProcess trainer(mode, run());
    const int status = trainer.wait();
    trainer.read_to_end();
    EXPECT_EQ(trainer.staged(), 1) << mode;
    if (mode == "throw" || mode == "abort") {
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << mode;
    } else {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << mode << " " << status;
    }
    expect_ended(trainer.helper());
    EXPECT_EQ(expect_whole(1), 0u) << mode;
    expect_no_descendants();
  }
  report("trainer ends without close", modes.size());
}

class TrainerKilled : public TrainerDeath, public ::testing::WithParamInterface<const char*> {
 protected:
  static constexpr int kKills = 40;
  /// Where the machine is so busy, or its disk such, that those have shown nothing yet.
  static constexpr int kMostKills = 400;

  /// How long the trainer goes on after it has begun with its first save.
  static std::chrono::microseconds until_kill(std::mt19937& random, int kills) {
    const int slower = 1 + std::max(0, kills - kKills) / 10;
    return std::chrono::microseconds(random() % 40'000) * slower;
  }
};

TEST_P(TrainerKilled, AtRandomInstantsLosesNothingThatWasStaged) {
  std::mt19937 random(17);
  int promised = 0;
  int kills = 0;
  for (; kills < kKills || (promised <= 5 && kills < kMostKills); ++kills) {
    fs::remove_all(run());
    TrainerProcess trainer(GetParam(), run());
    ASSERT_TRUE(trainer.read_until("staging 1"));
    trainer.read_for(until_kill(random, kills));
    trainer.kill_and_read();
    expect_ended(trainer.helper());
    EXPECT_EQ(expect_whole(trainer.staged()), 0u);
    promised += trainer.staged();
    if (HasFailure()) break;
  }
  EXPECT_GT(promised, 5) << "killed too early to have promised anything";
  expect_no_descendants();
  FaultRow{std::string("trainer killed at a random instant, ") + GetParam(),
           static_cast<std::uint64_t>(kills), lost_, torn_}
      .report();
}

TEST_P(TrainerKilled,
       TogetherWithItsCheckpointProcessLeavesWhatWasWrittenAndAHiddenFileForEachSaveInFlight) {
  std::mt19937 random(18);
  int leftovers = 0;
  int kills = 0;
  for (; kills < kKills || (leftovers == 0 && kills < kMostKills); ++kills) {
    fs::remove_all(run());
    TrainerProcess trainer(GetParam(), run());
    ASSERT_TRUE(trainer.read_until("staging 1"));
    trainer.read_for(until_kill(random, kills));
    const bool helper_first = random() % 2 == 0;
    if (helper_first) (void)::kill(trainer.helper(), SIGKILL);
    trainer.signal(SIGKILL);
    (void)::kill(trainer.helper(), SIGKILL);
    (void)trainer.wait();
    trainer.read_to_end();
    // Where the helper was killed first, the trainer may have started another one before it died.
    while (::waitpid(-1, nullptr, 0) > 0) {
    }
    const std::size_t left = expect_whole(trainer.written());
    EXPECT_LE(left, GetParam() == std::string("loop") ? 1u : 2u);
    leftovers += static_cast<int>(left);
    // The next saves to those names remove it.
    save::SyncSave sync({}, {}, {});
    for (const std::string& name : names_in(run())) {
      if (!hidden(name)) continue;
      const std::string path = fs::path(run() + "/" + name).parent_path();
      (void)sync.run(job_for(path, noise({100}, 1)));
      EXPECT_EQ(names_in(path), std::vector<std::string>{"checkpoint_0.pt"});
    }
    if (HasFailure()) break;
  }
  EXPECT_GT(leftovers, 0) << "killed too late to leave anything";
  FaultRow{std::string("both processes killed at a random instant, ") + GetParam(),
           static_cast<std::uint64_t>(kills), lost_, torn_}
      .report();
}

INSTANTIATE_TEST_SUITE_P(Trainers, TrainerKilled, ::testing::Values("loop", "two-in-flight"),
                         [](const auto& mode) {
                           return std::string(mode.param) == "loop" ? "one_in_flight"
                                                                    : "two_in_flight";
                         });

// ---- signals as they come in practice

TEST_F(TrainerDeath, BySignalsToItsProcessGroupLosesNothing) {
  const std::vector<int> numbers{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGKILL};
  for (const int number : numbers) {
    fs::remove_all(run());
    TrainerProcess trainer("pause-sealed", run());
    ASSERT_TRUE(trainer.read_until("staged 1"));
    trainer.signal_group(number);
    const int status = trainer.wait();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == number);
    expect_ended(trainer.helper());
    EXPECT_EQ(expect_whole(1), 0u) << number;
  }
  report("signal to the process group", numbers.size());
}

TEST_F(TrainerDeath, AfterASigtermHandlerThatSavesLeavesADurableCheckpoint) {
  TrainerProcess trainer("preempted", run());
  ASSERT_TRUE(trainer.read_until("training"));
  trainer.signal_group(SIGTERM);
  const int status = trainer.wait();
  EXPECT_TRUE(fs::exists(file_of(1))) << "not durable when the trainer ended";
  trainer.read_to_end();
  EXPECT_EQ(trainer.written(), 1);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  expect_ended(trainer.helper());
  EXPECT_EQ(expect_whole(1), 0u);
  report("signal: SIGTERM, whose handler has a save made", 1);
}

TEST_F(TrainerDeath, AsPidOneOfANamespaceTakesAllWithItAndTearsNothing) {
  // The namespace belongs to a process in between, whose first child is PID 1.
  const pid_t between = ::fork();
  ASSERT_GE(between, 0);
  constexpr int kRefused = 77;
  if (between == 0) {
    if (::unshare(CLONE_NEWPID) != 0) ::_exit(kRefused);
    try {
      TrainerProcess trainer("loop", run());
      if (!trainer.read_until("staged 2")) ::_exit(1);
      trainer.kill_and_read();
      ::_exit(std::min(trainer.written(), 200) + 10);  // of a status, 8 bits are passed on
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(2);
    }
  }
  const std::optional<int> status = wait_for_end(between);
  ASSERT_TRUE(status);
  ASSERT_TRUE(WIFEXITED(*status));
  if (WEXITSTATUS(*status) == kRefused) {
    GTEST_SKIP() << "this host refuses PID namespaces";
  }
  ASSERT_GE(WEXITSTATUS(*status), 11) << "the first save was written before the second was staged";
  EXPECT_LE(expect_whole(WEXITSTATUS(*status) - 10), 1u);
  report("signal: the end of a PID namespace", 1);
}

// ---- the old process is still committing

class StillCommitting : public TrainerDeath {
 protected:
  void SetUp() override {
    CrashTest::SetUp();
    save::SyncSave sync({}, {}, {});
    (void)sync.run(job_for(run() + "/step_0", noise({100}, 1), {}, 0));
    ASSERT_EQ(::setenv("GATE", gate_.c_str(), 1), 0);
  }
  /// A trainer that was killed while its first save is held before the rename.
  void leave_one_save_uncommitted() {
    TrainerProcess trainer("pause-sealed", run(), HELD_COMMIT_DRAIN_PATH);
    ASSERT_TRUE(trainer.read_until("staged 1"));
    wait_for_file(gate_ + ".before.1.reached");
    trainer.kill_and_read();
    helper_ = trainer.helper();
  }
  /// A trainer that was killed with two saves staged, of which the first is renamed: its helper is
  /// held before it begins with the second.
  void leave_the_second_of_two_saves(const std::string& mode) {
    TrainerProcess trainer(mode, run(), HELD_COMMIT_DRAIN_PATH);
    ASSERT_TRUE(trainer.read_until("staged 2"));
    trainer.kill_and_read();
    helper_ = trainer.helper();
    make_file(gate_ + ".before.1");
    wait_for_file(gate_ + ".after.1.reached");
    ASSERT_TRUE(contents_of(file_of(1)) == expected(1));
  }
  void TearDown() override {
    open_gate();
    if (helper_ > 0) expect_ended(helper_);
    CrashTest::TearDown();
  }
  void open_gate() const { make_file(gate_ + ".open"); }

  /// What `latest` returns once its patience has ended, and the one warning about it.
  std::string warning_of_impatient_latest(int newest_step) const {
    std::vector<std::string> warnings;
    set_log_level(LogLevel::warn);
    set_log_handler([&](LogLevel, std::string_view line) { warnings.emplace_back(line); });
    const auto newest = latest(run(), {.wait_secs = 0.1});
    set_log_handler({});
    EXPECT_TRUE(newest && newest->step == newest_step);
    EXPECT_EQ(warnings.size(), 1u);
    return warnings.empty() ? std::string() : warnings.front();
  }
  /// What it returns if the gate is opened meanwhile.
  std::optional<CheckpointInfo> patient_latest() const {
    std::thread opener([this] {
      ::usleep(30'000);
      open_gate();
    });
    auto newest = latest(run());
    opener.join();
    return newest;
  }

  static CheckpointerConfig config(double busy_timeout_secs) {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 4 << 20;
    config.writer_config.busy_timeout_secs = busy_timeout_secs;
    return config;
  }

  std::string gate_ = directory_ / "gate";
  pid_t helper_ = -1;
};

TEST_F(StillCommitting, LatestReturnsTheNewestCompleteOneOnceItsPatienceEnds) {
  leave_one_save_uncommitted();
  const std::string warning = warning_of_impatient_latest(0);
  EXPECT_NE(warning.find("step_1"), std::string::npos) << warning;
  report("still committing: an impatient latest", 1);
}

TEST_F(StillCommitting, LatestWaitsForItAndThenReturnsIt) {
  leave_one_save_uncommitted();
  const auto newest = patient_latest();
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->step, 1);
  report("still committing: latest", 1);
}

TEST_F(StillCommitting, LatestWaitsForASaveThatComesAfterTheOneJustCommitted) {
  leave_the_second_of_two_saves("two-sealed");
  const std::string warning = warning_of_impatient_latest(1);
  EXPECT_NE(warning.find("step_2"), std::string::npos) << warning;
  const auto newest = patient_latest();
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->step, 2);
  report("still committing: latest, two saves", 2);
}

TEST_F(StillCommitting, SavesToTheSameNameFailAsBusyElsewhereAndLeaveItAlone) {
  leave_one_save_uncommitted();
  const auto busy = [&](auto&& save) {
    try {
      save();
      ADD_FAILURE() << "saved over a save that is being committed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::busy_elsewhere) << error.what();
    }
  };
  save::AsyncSave async(config(0.1), {});
  busy([&] { async.submit(job_for(run() + "/step_1", noise({100}, 9), {}, 9)).written.get(); });
  save::SyncSave sync(config(0.1).writer_config, {}, {});
  busy([&] { (void)sync.run(job_for(run() + "/step_1", noise({100}, 9), {}, 9)); });
  open_gate();
  expect_ended(helper_);
  helper_ = -1;
  EXPECT_TRUE(contents_of(file_of(1)) == expected(1));
  report("still committing: a save to the same name, impatient", 2);
}

TEST_F(StillCommitting, AnOlderSaveThatComesSecondIsNeverRenamedOverANewerOne) {
  leave_the_second_of_two_saves("two-sealed-one-name");
  save::AsyncSave async(config(60), {});
  const SaveHandle newer = async.submit(job_for(run() + "/step_1", noise({100}, 9), {}, 9));
  EXPECT_FALSE(newer.written.wait_for(std::chrono::milliseconds(100))) << "did not wait";
  open_gate();
  EXPECT_NO_THROW(newer.written.get());
  expect_ended(helper_);
  helper_ = -1;
  EXPECT_LT(fs::file_size(file_of(1)), kTrainersState) << "an older save is the last one";
  EXPECT_EQ(names_in(run()).size(), 2u);
  report("still committing: a save to the same name, two saves", 1);
}

TEST_F(StillCommitting, AnOlderSaveIsNeverRenamedOverANewerOne) {
  leave_one_save_uncommitted();
  save::AsyncSave async(config(60), {});
  const SaveHandle newer = async.submit(job_for(run() + "/step_1", noise({100}, 9), {}, 9));
  EXPECT_FALSE(newer.written.wait_for(std::chrono::milliseconds(100))) << "did not wait";
  open_gate();
  EXPECT_NO_THROW(newer.written.get());
  expect_ended(helper_);
  helper_ = -1;
  EXPECT_LT(fs::file_size(file_of(1)), kTrainersState) << "the older save is the last one";
  EXPECT_EQ(names_in(run()).size(), 2u);
  report("still committing: a save to the same name", 1);
}

// ---- trainers that fork

std::set<std::string> descriptors_of(pid_t process) {
  std::set<std::string> descriptors;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(process) + "/fd")) {
    descriptors.insert(entry.path().filename());
  }
  return descriptors;
}

TEST_F(TrainerDeath, WithForkedChildrenAliveIsNoticedAndTheyHoldNothing) {
  const std::string gate = directory_ / "gate";
  ASSERT_EQ(::setenv("GATE", gate.c_str(), 1), 0);
  TrainerProcess trainer("children", run(), HELD_COMMIT_DRAIN_PATH);
  // With destructors, in the middle of a save.
  ASSERT_TRUE(trainer.read_until("child ended 0"));
  wait_for_file(gate + ".before.1.reached");
  EXPECT_FALSE(fs::exists(file_of(1)));
  make_file(gate + ".open");
  ASSERT_TRUE(trainer.read_until("staged 2"));
  EXPECT_EQ(trainer.written(), 1);
  const pid_t child = trainer.child();  // the second one: it lives on
  ASSERT_GT(child, 0);
  std::ifstream maps("/proc/" + std::to_string(child) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("memfd:"), std::string::npos) << line;
  }
  // The child closes them itself, as soon as it runs.
  const std::set<std::string> usual{"0", "1", "2"};
  const auto deadline = std::chrono::steady_clock::now() + kStuck;
  std::set<std::string> descriptors = descriptors_of(child);
  while (descriptors != usual && std::chrono::steady_clock::now() < deadline) {
    ::usleep(500);
    descriptors = descriptors_of(child);
  }
  EXPECT_EQ(descriptors, usual);
  EXPECT_EQ(::kill(trainer.helper(), 0), 0) << "a child has taken the checkpoint process along";
  trainer.signal(SIGKILL);
  (void)trainer.wait();
  expect_ended(trainer.helper());
  EXPECT_EQ(expect_whole(2), 0u);
  EXPECT_EQ(::kill(child, 0), 0) << "the child was to outlive all of it";
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
  report("trainer that forked children is killed", 2);
}

}  // namespace
}  // namespace ckptring::test
