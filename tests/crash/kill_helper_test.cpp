// The checkpoint process is killed while it works; the save completes all the same.
#include "crash/crash_test.h"
#include "crash/orphans.h"
#include "crash/traced_trainer.h"
#include "save/async_save.h"
#include "support/fault_row.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::test {
namespace {

class KillHelper : public CrashTestOfModes {
 protected:
  static CheckpointerConfig config() {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 256 << 10;
    config.process_config.ring_bytes = 16 * (256 << 10);
    config.process_config.max_restarts = 1000;
    // A helper that is killed again and again while it starts is not to count as one that hangs.
    config.process_config.subprocess_init_timeout_secs = 200;
    config.writer_config.mode = GetParam();
    return config;
  }
};

/// A kill that comes too late to test anything, as a quick disk or a busy machine has it, is tried
/// again.
constexpr int kAttempts = 50;

TEST_P(KillHelper, InTheMiddleOfASaveTheFileIsWholeAndTheSame) {
  const auto storages = noise({20'000'000, 123, 5'000'000}, 1);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  save::AsyncSave async(config(), {});
  std::uint32_t restarts = 0;
  for (int attempt = 0; attempt < kAttempts && restarts == 0; ++attempt) {
    std::filesystem::remove_all(directory_ / "run");
    async.ready();
    const SaveHandle save = async.submit(job_for(directory_ / "run", storages));
    // The temporary appears once blocks are being taken.
    while (!std::filesystem::exists(directory_ / "run") && !save.written.ready()) {
      std::this_thread::yield();
    }
    const int victim = async.process_id();
    ASSERT_GT(victim, 0);
    ASSERT_EQ(::kill(victim, SIGKILL), 0);
    const SaveReport report = save.written.get();
    EXPECT_TRUE(contents_of(report.path) == expected);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_ / "run"), {}), 1);
    restarts = report.restarts;
    // An idle victim is replaced as well, which `ready` may not have noticed yet.
    while (async.process_id() == victim) std::this_thread::yield();
  }
  EXPECT_GE(restarts, 1u) << "the kill came too late to test anything";
}

/// How many processes the test below kills, for each write mode: CKPTRING_KILLS of the environment,
/// else a third of 200 and a little.
std::uint64_t kills_wanted() {
  const char* const wanted = std::getenv("CKPTRING_KILLS");
  return wanted != nullptr ? std::stoull(wanted) : 67;
}

TEST_P(KillHelper, AgainAndAgainAtRandomInstantsEverySaveIsWholeAndTheSame) {
  const std::array storages{noise({6'000'000, 70'000, 1'000'000}, 2), noise({5'000'000, 3}, 3)};
  const std::array expected{undisturbed_file(directory_ / "expected", storages[0]),
                            undisturbed_file(directory_ / "expected", storages[1])};
  const std::string final_path = directory_ / "run/checkpoint_0.pt";
  const std::uint64_t wanted = kills_wanted();
  FaultRow row{"killed at random instants, " + name_of(GetParam())};
  save::AsyncSave async(config(), {});
  async.submit(job_for(directory_ / "run", storages[1])).written.get();
  std::mt19937 random(7);
  int last_victim = 0;
  // A quick disk ends a save before its turn comes, so what counts is the number of kills.
  for (std::size_t save_count = 0; row.cases < wanted; ++save_count) {
    const std::size_t which = save_count % 2;
    const SaveHandle save = async.submit(job_for(directory_ / "run", storages[which]));
    while (!save.written.wait_for(std::chrono::microseconds(random() % 30'000))) {
      const int victim = async.process_id();
      // It may be between two lives.
      if (victim <= 0 || victim == last_victim || ::kill(victim, SIGKILL) != 0) continue;
      last_victim = victim;
      ++row.cases;
      const std::string seen = contents_of(final_path);
      if (seen != expected[0] && seen != expected[1]) ++row.torn;
      // Deaths before the first block are paused after, longer each time.
      if (row.cases % 7 == 6) (void)save.written.wait_for(std::chrono::seconds(1));
    }
    if (save.written.error() || contents_of(final_path) != expected[which]) ++row.lost;
    ASSERT_EQ(row.lost, 0u) << "save " << save_count;
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_ / "run"), {}), 1);
  async.close();
  EXPECT_EQ(::waitid(P_ALL, 0, nullptr, WEXITED | WNOHANG | WNOWAIT), -1) << "a child is left";
  row.report();
}

/// The ids of this process's children, whichever thread started them.
std::vector<int> children() {
  std::vector<int> found;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream list(thread.path() / "children");
    for (int id = 0; list >> id;) found.push_back(id);
  }
  return found;
}

/// Between clone and exec the process still runs in the trainer's memory; a tracer would come too
/// late for that.
TEST_P(KillHelper, AsSoonAsThereIsOneTheNextOneCompletesTheSave) {
  if (!std::filesystem::exists("/proc/thread-self/children")) {
    GTEST_SKIP() << "this kernel does not list a process's children";
  }
  const auto storages = noise({900'000, 70'000}, 4);
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  FaultRow row{"killed between clone and exec, " + name_of(GetParam())};
  save::AsyncSave async(config(), {});
  async.submit(job_for(directory_ / "run", storages)).written.get();
  int before_exec = 0;
  // Some are killed too late for that, or collected before their name could be read.
  const std::uint64_t most = 30 * kAttempts;
  while (row.cases < 30 || (before_exec == 0 && row.cases < most)) {
    const int idle = async.process_id();
    if (idle <= 0) continue;
    const SaveHandle save = async.submit(job_for(directory_ / "run", storages));
    // A victim of the round before that had written everything may only just have been reaped.
    if (::kill(idle, SIGKILL) != 0) {
      ASSERT_EQ(errno, ESRCH);
    }
    int victim = 0;
    while (victim == 0 && !save.written.ready()) {
      for (const int child : children()) {
        if (child != idle) victim = child;
      }
    }
    if (victim > 0 && ::kill(victim, SIGKILL) == 0) {
      ++row.cases;
      // Until its exec a process has the name of the thread that it came from.
      std::string name;
      std::getline(std::ifstream("/proc/" + std::to_string(victim) + "/comm"), name);
      if (name == "ckptring-watch") ++before_exec;
    }
    if (save.written.error() || contents_of(directory_ / "run/checkpoint_0.pt") != expected) {
      ++row.lost;
    }
  }
  async.close();
  EXPECT_TRUE(children().empty());
  row.report();
  EXPECT_GT(before_exec, 0) << "all were killed too late";
}

TEST_P(KillHelper, MoreOftenThanTheBudgetAllowsFailsTheSaveWithTheCauseAndTheNextOneWorks) {
  CheckpointerConfig limited = config();
  limited.process_config.max_restarts = 2;
  save::AsyncSave async(limited, {});
  async.ready();
  const auto storages = noise({60'000'000}, 3);
  const std::string file = directory_ / "run/checkpoint_0.pt";
  bool failed = false;
  for (int attempt = 0; attempt < kAttempts && !failed; ++attempt) {
    std::filesystem::remove_all(directory_ / "run");
    const SaveHandle save = async.submit(job_for(directory_ / "run", storages));
    while (!save.written.ready()) {
      const int victim = async.process_id();
      if (victim > 0) (void)::kill(victim, SIGKILL);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    try {
      ASSERT_LE(save.written.get().restarts, 2u) << "survived more kills than allowed";
    } catch (const Error& error) {
      failed = true;
      EXPECT_EQ(error.code(), ErrorCode::process_failed);
      EXPECT_NE(error.cause().find("terminated by signal 9 (Killed) after 2 restarts"),
                std::string::npos)
          << error.what();
    }
  }
  ASSERT_TRUE(failed) << "always written before it had been killed three times";
  EXPECT_FALSE(std::filesystem::exists(file));
  const std::string expected = undisturbed_file(directory_ / "expected", storages);
  EXPECT_NO_THROW(async.submit(job_for(directory_ / "run", storages)).written.get());
  EXPECT_TRUE(contents_of(file) == expected);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_ / "run"), {}), 1)
      << "the dead process's temporary was not removed by the next save";
}

INSTANTIATE_TEST_SUITE_P(WriteModes, KillHelper, write_modes(), mode_of_test);

/// Runs a trainer in a child process that tells through a pipe when its save is staged, then
/// waits to be killed.
class KillTrainer : public CrashTest {
 protected:
  KillTrainer() { adopt_orphans(); }

  static CheckpointerConfig config(std::uint64_t blocks) {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 256 << 10;
    config.process_config.ring_bytes = blocks * (256 << 10);
    return config;
  }

  /// Returns once the checkpoint process, an orphan, has ended by itself.
  template <class Trainer>
  static void run_and_kill(Trainer trainer) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      trainer([&](int process) { (void)!::write(ends[1], &process, sizeof process); });
      ::_exit(3);
    }
    ::close(ends[1]);
    int process = 0;
    ASSERT_EQ(::read(ends[0], &process, sizeof process), static_cast<ssize_t>(sizeof process));
    ::close(ends[0]);
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const std::optional<int> status = wait_for_end(process);
    ASSERT_TRUE(status) << "the checkpoint process goes on for ever";
    EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 0) << *status;
  }
};

TEST_F(KillTrainer, AfterStagedTheCheckpointProcessCommitsAndEnds) {
  const auto storages = noise({20'000'000}, 4);
  save::SyncSave sync({}, {}, {});
  const std::string expected =
      contents_of(sync.run(job_for(directory_ / "expected", storages)).path);
  ASSERT_NO_FATAL_FAILURE(run_and_kill([&](auto tell) {
    save::AsyncSave async(config(100), {});
    async.ready();
    const SaveHandle save = async.submit(job_for(directory_ / "run", storages));
    save.staged.wait();
    tell(async.process_id());
    ::pause();
  }));
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt") == expected);
}

TEST_F(KillTrainer, BeforeSealedLeavesNothing) {
  const auto storages = noise({5'000'000}, 5);
  ASSERT_NO_FATAL_FAILURE(run_and_kill([&](auto tell) {
    save::AsyncSave async(config(100), {});
    async.ready();
    save::SaveJob job = job_for(directory_ / "new/run", storages);
    const int process = async.process_id();
    job.check_unchanged = [&](int, const save::Captured&) {  // after the last copy, before sealing
      tell(process);
      ::pause();
    };
    async.submit(std::move(job)).written.wait();
  }));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "new"));
}

}  // namespace
}  // namespace ckptring::test
