// What an operator reads.
#include "save/async_save.h"

#include "save/sync_save.h"
#include "support/forbid_calls.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/checkpoints.h>
#include <ckptring/error.h>
#include <ckptring/future.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace ckptring::save {
namespace {

using test::job_for;
using test::LogLines;
using test::noise;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr RankInfo kRank{3, 4};

CheckpointerConfig config_with(std::uint64_t ring_bytes) {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.ring_bytes = ring_bytes;
  return config;
}

TEST(Log, TellsTheSizeOfTheRingAndWhy) {
  const test::TemporaryDirectory directory;
  const LogLines log(LogLevel::info);
  AsyncSave async(config_with(0), kRank);
  async.submit(job_for(directory / "run", noise({30'000'000}, 1), kRank)).written.get();
  async.wait_prefaulted();
  const auto size = log.with("ring of ");
  ASSERT_EQ(size.size(), 1u);
  EXPECT_EQ(size[0].text,
            "[rank 3] ring of 8 blocks of 4096 KiB: as large as the file of 28.6 MiB");
  const auto populated = log.with("ring populated: 32 MiB, ");
  ASSERT_EQ(populated.size(), 1u);
  EXPECT_THAT(populated[0].text, StartsWith("[rank 3] "));
}

TEST(Log, TellsTheSizeOfTheSmallestRingWhenAFileIsKnown) {
  const test::TemporaryDirectory directory;
  const LogLines log(LogLevel::info);
  AsyncSave async(config_with(0), kRank);
  async.ready();
  EXPECT_TRUE(log.with("ring of ").empty());
  for (int i = 0; i < 2; ++i) {
    async.submit(job_for(directory / "run", noise({1 << 20}, 1), kRank)).written.get();
  }
  async.wait_prefaulted();
  const auto size = log.with("ring of ");
  ASSERT_EQ(size.size(), 1u);
  EXPECT_EQ(size[0].text,
            "[rank 3] ring of 2 blocks of 4096 KiB: the fewest there are; the file has 1.0 MiB");
  EXPECT_EQ(log.with("ring populated: 8 MiB, ").size(), 1u);
}

TEST(Log, TellsTheSizeOfAGivenRingAtOnce) {
  const LogLines log(LogLevel::info);
  const AsyncSave async(config_with(12 << 20), kRank);
  const auto size = log.with("ring of ");
  ASSERT_EQ(size.size(), 1u);
  EXPECT_EQ(size[0].text, "[rank 3] ring of 3 blocks of 4096 KiB: as configured");
}

TEST(Log, LinesOfTheCheckpointProcessSayTheRankAndTheSave) {
  const test::TemporaryDirectory directory;
  const LogLines log(LogLevel::info);
  {
    AsyncSave async(config_with(8 << 20), kRank);
    async.submit(job_for(directory / "first", noise({1000}, 1), kRank)).written.get();
    std::filesystem::create_directory(directory / "second");
    const std::string dead = ".checkpoint_3.pt." + std::string(32, 'a') + ".tmp";
    std::ofstream(directory / ("second/" + dead)) << "torn";
    async.submit(job_for(directory / "second", noise({1000}, 1), kRank)).written.get();
    async.close();
  }
  const auto removed = log.with("left by a dead process");
  ASSERT_EQ(removed.size(), 1u);
  EXPECT_THAT(removed[0].text, StartsWith("[rank 3] [save 2] removed "));
}

TEST(Log, AFailureThatNobodyFetchedIsAnError) {
  const test::TemporaryDirectory directory;
  const LogLines log;
  AsyncSave async(config_with(8 << 20), kRank);
  async.submit(job_for("/proc/ckptring-test/run", noise({1000}, 1), kRank)).written.wait();
  async.submit(job_for(directory / "good", noise({1000}, 1), kRank)).written.get();
  const auto lines = log.with("nobody asked for its result");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, LogLevel::error);
  EXPECT_THAT(lines[0].text, StartsWith("[rank 3] [save 1] "));
  EXPECT_THAT(lines[0].text, HasSubstr("/proc/ckptring-test"));
}

/// Calls `act`, once, where a line with `part` is handled.
class ActingHandler {
 public:
  ActingHandler(std::string part, std::function<void()> act)
      : part_(std::move(part)), act_(std::move(act)), level_before_(log_level()) {
    set_log_level(LogLevel::debug);
    set_log_handler([this](LogLevel, std::string_view line) {
      if (line.find(part_) == std::string_view::npos || acted_.ready()) return;
      act_();
      done_.set_value();
    });
  }
  ~ActingHandler() {
    set_log_handler({});
    set_log_level(level_before_);
  }
  ActingHandler(const ActingHandler&) = delete;
  ActingHandler& operator=(const ActingHandler&) = delete;
  void wait() const { acted_.wait(); }

 private:
  std::string part_;
  std::function<void()> act_;
  LogLevel level_before_;
  Promise<void> done_;
  Future<void> acted_ = done_.future();
};

TEST(Log, AHandlerMayDoAnythingAndWaitForIt) {
  const test::TemporaryDirectory directory;
  const std::string untold = "nobody asked for its result";
  // Of the watching thread, of the one that stages, and of the one that is within `submit`: each is
  // needed for every save.
  for (const std::string& line : {std::string("started "), std::string("staged "), untold}) {
    SCOPED_TRACE(line);
    const std::string path = directory / line;
    std::optional<AsyncSave> async;
    Promise<void> made;
    const ActingHandler handler(line, [&] {
      made.future().wait();
      set_log_level(LogLevel::info);
      (void)SyncSave({}, {}, {}).run(job_for(path + "/sync", noise({1000}, 1)));
      EXPECT_TRUE(latest(path, {0}).has_value());
      async->ready();
      (void)async->prepare(job_for("", noise({1000}, 2), kRank));
      async->wait_prefaulted();
      async->check_usable();
      // The one save that may be in flight ends before that.
      EXPECT_NO_THROW(
          async->submit(job_for(path + "/second", noise({1000}, 2), kRank)).written.get());
      EXPECT_TRUE(async->wait_written(std::chrono::steady_clock::now()).size() <= 1);
    });
    async.emplace(config_with(8 << 20), kRank);
    if (line == untold) {
      async->submit(job_for("/proc/ckptring-test/run", noise({1000}, 1), kRank)).written.wait();
    }
    made.set_value();
    const SaveHandle first = async->submit(job_for(path + "/first", noise({1000}, 1), kRank));
    EXPECT_NO_THROW(first.written.get());
    handler.wait();
  }
}

TEST(Log, AHandlerMayClose) {
  const test::TemporaryDirectory directory;
  AsyncSave async(config_with(8 << 20), kRank);
  const ActingHandler handler("staged ", [&] { async.close(); });
  const SaveHandle save = async.submit(job_for(directory / "run", noise({1000}, 1), kRank));
  handler.wait();
  EXPECT_TRUE(save.written.ready());
  EXPECT_NO_THROW(save.written.get());
  EXPECT_THROW(async.check_usable(), Error);
}

TEST(Log, AHandlerThatHangsHoldsUpNoSave) {
  const test::TemporaryDirectory directory;
  Promise<void> ended;
  const ActingHandler handler("ring of ", [&] { ended.future().wait(); });
  AsyncSave async(config_with(8 << 20), kRank);
  for (const char* const name : {"first", "second"}) {
    EXPECT_NO_THROW(async.submit(job_for(directory / name, noise({1000}, 1), kRank)).written.get());
  }
  async.close();
  ended.set_value();
}

/// What this machine lacks is said once in a process: this runs in one of its own.
TEST(LogDeathTest, AMissingCloseRangeIsSaidOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [] {
    if (!test::forbid_call(__NR_close_range, ENOSYS) || !test::limit_descriptors()) std::_Exit(2);
    const LogLines log;
    for (int i = 0; i < 3; ++i) AsyncSave(config_with(8 << 20), kRank).ready();
    const auto lines = log.with("close_range is missing (Linux 5.9)");
    std::_Exit(lines.size() == 1 && lines[0].text.starts_with("[rank 3] ") ? 0 : 1);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace ckptring::save
