// Trainers whose process environment is not the usual one: standard descriptors are closed, the
// environment changes, the process becomes another program or another user, threads wait for
// signals, or are pinned, or cannot be made.
#include "crash/crash_test.h"
#include "crash/orphans.h"

#include "os/pidfd.h"

#include <ckptring/checkpoints.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

namespace ckptring::test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBytes = 1'500'000;

/// The program of these tests, as a process of its own.
class OddTrainer {
 public:
  OddTrainer(const std::string& mode, const std::string& directory,
             const char* helper = CKPTRING_DRAIN_PATH) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    process_ = ::fork();
    if (process_ < 0) throw std::runtime_error("fork");
    if (process_ == 0) {
      (void)::dup2(ends[1], STDERR_FILENO);
      for (int fd = STDERR_FILENO + 1; fd < 256; ++fd) (void)::close(fd);
      ::execl(ODD_TRAINER_PATH, ODD_TRAINER_PATH, helper, directory.c_str(), mode.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    said_ = ::fdopen(ends[0], "r");
  }
  ~OddTrainer() {
    if (process_ > 0) {
      (void)::kill(process_, SIGKILL);
      (void)::waitpid(process_, nullptr, 0);
    }
    (void)std::fclose(said_);
  }
  OddTrainer(const OddTrainer&) = delete;
  OddTrainer& operator=(const OddTrainer&) = delete;

  [[nodiscard]] pid_t id() const noexcept { return process_; }

  /// Empty at the end.
  std::string read_line() {
    std::array<char, 4096> line{};
    if (std::fgets(line.data(), static_cast<int>(line.size()), said_) == nullptr) return {};
    return line.data();
  }
  /// From its line "helper PID".
  pid_t read_helper() {
    const std::string line = read_line();
    int helper = 0;
    if (std::sscanf(line.c_str(), "helper %d", &helper) != 1) {
      throw std::runtime_error("the trainer says: " + line);
    }
    return helper;
  }
  /// Waits for its end.
  int exit_status() {
    const std::optional<int> status = wait_for_end(process_);
    if (!status) throw std::runtime_error("the trainer does not end");
    process_ = -1;
    return WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
  }

 private:
  pid_t process_ = -1;
  FILE* said_ = nullptr;
};

class OddTrainers : public CrashTest {
 protected:
  void expect_all_as_promised(const std::string& mode) {
    OddTrainer trainer(mode, run());
    const int status = trainer.exit_status();
    if (status == 77) GTEST_SKIP() << "this machine does not allow to try";
    EXPECT_EQ(status, 0) << trainer.read_line();
  }
  [[nodiscard]] std::string run() const { return directory_.path(); }
  [[nodiscard]] std::string path_of(int step) const {
    return directory_ / ("step_" + std::to_string(step));
  }
  void expect_whole(int step, std::uint64_t bytes = kBytes) {
    const TemporaryDirectory expected;
    save::SyncSave sync({}, {}, {});
    const auto report = sync.run(
        job_for(expected / "run", noise({bytes}, static_cast<std::uint64_t>(step)), {}, step));
    EXPECT_TRUE(contents_of(path_of(step) + "/checkpoint_0.pt") == contents_of(report.path))
        << "step " << step;
  }
  /// The helper of a trainer that has become another program is still that one's child.
  static void expect_ended(pid_t helper) {
    const auto deadline = std::chrono::steady_clock::now() + kStuck;
    char state = 0;
    while ((state = os::process_state(helper)) != 'Z' && state != 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the helper goes on, " << state;
      ::usleep(500);
    }
  }
};

TEST_F(OddTrainers, WithoutStandardDescriptorsSaveWholeFiles) {
  expect_all_as_promised("closed-async");
  for (int step = 1; step <= 6; ++step) expect_whole(step);
  for (int step = 7; step <= 9; ++step) expect_whole(step, kBytes * static_cast<unsigned>(step));
}

TEST_F(OddTrainers, WithoutStandardDescriptorsSaveWholeFilesInTheirOwnThread) {
  expect_all_as_promised("closed-sync");
  for (int step = 1; step <= 20; ++step) expect_whole(step);
}

TEST_F(OddTrainers, MayChangeTheirEnvironmentWhileHelpersAreStarted) {
  expect_all_as_promised("environment");
}

// ---- trainers that become another program, under the same process id

TEST_F(OddTrainers, ThatBecomeAnotherProgramLeaveNoHelperBehind) {
  for (const char* const mode : {"exec-idle", "exec-while-starting"}) {
    OddTrainer trainer(mode, run());
    expect_ended(trainer.read_helper());
    EXPECT_NE(os::process_state(trainer.id()), 0) << "while the other program runs";
  }
  expect_whole(1);
}

TEST_F(OddTrainers, ThatBecomeAnotherProgramLeaveNoHelperBehindThatHasNoStandardError) {
  fs::create_directories(path_of(1));
  ASSERT_EQ(::setenv("CUSTOM_DRAIN", "no-stderr", 1), 0);
  for (const char* const mode : {"exec-idle", "exec-once-staged"}) {
    OddTrainer trainer(mode, run(), CUSTOM_DRAIN_PATH);
    expect_ended(trainer.read_helper());
    EXPECT_NE(os::process_state(trainer.id()), 0) << "while the other program runs";
  }
  ASSERT_EQ(::unsetenv("CUSTOM_DRAIN"), 0);
  EXPECT_TRUE(fs::exists(path_of(1) + "/checkpoint_0.pt.custom"));
}

TEST_F(OddTrainers, ThatBecomeAnotherProgramWhileStagingLeaveNothingLocked) {
  OddTrainer trainer("exec-while-staging", run());
  expect_ended(trainer.read_helper());
  EXPECT_FALSE(fs::exists(path_of(1))) << "the save is not undone";
  EXPECT_FALSE(latest(run(), {.wait_secs = 0}));
  save::SyncSave sync({}, {}, {});
  EXPECT_NO_THROW((void)sync.run(job_for(path_of(1), noise({kBytes}, 1), {}, 1)));
}

TEST_F(OddTrainers, ThatBecomeAnotherProgramLoseNothingThatWasStaged) {
  OddTrainer trainer("exec-once-staged", run());
  expect_ended(trainer.read_helper());
  expect_whole(1);
}

// ---- trainers that become another user

TEST_F(OddTrainers, ThatDropTheirRightsWriteNothingWithThem) {
  fs::permissions(run(), fs::perms::owner_all | fs::perms::others_exec | fs::perms::group_exec);
  expect_all_as_promised("dropped-root");
}

TEST_F(OddTrainers, ThatChangeTheirGroupsGetAHelperThatHasThem) {
  expect_all_as_promised("groups-changed");
}

TEST_F(OddTrainers, OfWhichOneThreadIsSomebodyElseAreToldThatItCannotSave) {
  fs::permissions(run(), fs::perms::all);
  expect_all_as_promised("one-thread-changed");
}

TEST_F(OddTrainers, ThatMayNotKillTheirHelperGiveItUp) {
  // The staging thread may look at its file as nobody already.
  fs::permissions(run(), fs::perms::owner_all | fs::perms::others_exec | fs::perms::group_exec);
  OddTrainer trainer("kill-refused", run());
  std::string line = trainer.read_line();
  const int status = trainer.exit_status();
  int helper = 0;
  if (std::sscanf(line.c_str(), "helper %d", &helper) == 1) {
    (void)::kill(helper, SIGKILL);  // it is root's, as this test is
    line = trainer.read_line();
  }
  if (status == 77) GTEST_SKIP() << "this machine does not allow to try";
  EXPECT_EQ(status, 0) << line;
}

// ---- threads

TEST_F(OddTrainers, ThatWaitForSignalsInOneThreadGetThem) {
  expect_all_as_promised("waits-for-signals");
}

TEST_F(OddTrainers, ThatArePinnedToOneCoreDoNotShareItWithTheLibrary) {
  expect_all_as_promised("pinned");
}

TEST_F(OddTrainers, WhoseThreadsHaveSmallStacksSave) {
  expect_all_as_promised("small-stacks");
  for (const int step : {1, 2, 3}) expect_whole(step);
}

TEST_F(OddTrainers, ThatMayHaveNoMoreThreadsAreToldSoAndSaveOnceTheyMay) {
  fs::permissions(run(), fs::perms::all);
  expect_all_as_promised("threads-run-out");
}

}  // namespace
}  // namespace ckptring::test
