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

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::ok;
}

TEST(Log, AHandlerMaySaveInAnyThreadOfTheLibrary) {
  const test::TemporaryDirectory directory;
  // Of the watching thread, and of the one that stages: each is needed for every save.
  for (const std::string line : {"started ", "staged "}) {
    const std::string path = directory / line;
    CheckpointerConfig config = config_with(8 << 20);
    config.max_saves_in_flight = 2;
    std::optional<AsyncSave> async;
    Promise<void> made;
    std::optional<SaveHandle> second;
    const ActingHandler handler(line, [&] {
      (void)SyncSave({}, {}, {}).run(job_for(path + "/sync", noise({1000}, 1)));
      EXPECT_TRUE(latest(path, {0}).has_value());
      set_log_level(LogLevel::info);
      made.future().wait();
      second = async->submit(job_for(path + "/second", noise({1000}, 2), kRank));
    });
    async.emplace(config, kRank);
    made.set_value();
    const SaveHandle first = async->submit(job_for(path + "/first", noise({1000}, 1), kRank));
    handler.wait();
    EXPECT_NO_THROW(first.written.get());
    EXPECT_NO_THROW(second->written.get());
  }
}

TEST(Log, AHandlerThatWouldHaveToWaitForASaveIsToldSo) {
  const test::TemporaryDirectory directory;
  std::optional<AsyncSave> async;
  const auto one_more = [&] {
    (void)async->submit(job_for(directory / "more", noise({1000}, 2), kRank));
  };
  {
    Promise<void> begun;
    // The thread that is in the handler would have to end the one save that may be in flight.
    const ActingHandler handler("started ", [&] {
      begun.future().wait();
      EXPECT_EQ(code_of(one_more), ErrorCode::invalid_argument);
      EXPECT_EQ(code_of([&] { async->close(); }), ErrorCode::invalid_argument);
      EXPECT_EQ(code_of([&] { async->ready(); }), ErrorCode::invalid_argument);
      EXPECT_EQ(code_of([&] { async->wait_prefaulted(); }), ErrorCode::invalid_argument);
      EXPECT_EQ(code_of([&] { (void)async->wait_written(std::chrono::steady_clock::now()); }),
                ErrorCode::invalid_argument);
      EXPECT_EQ(code_of([&] { async->prepare(job_for("", noise({1000}, 2), kRank)); }),
                ErrorCode::invalid_argument);
    });
    async.emplace(config_with(8 << 20), kRank);
    const SaveHandle save = async->submit(job_for(directory / "run", noise({1000}, 1), kRank));
    begun.set_value();
    EXPECT_NO_THROW(save.written.get());
  }
  // In the middle of a save call.
  async->submit(job_for("/proc/ckptring-test/run", noise({1000}, 1), kRank)).written.wait();
  const ActingHandler handler("nobody asked for its result", [&] {
    EXPECT_EQ(code_of(one_more), ErrorCode::invalid_argument);
    EXPECT_EQ(code_of([&] { async->check_usable(); }), ErrorCode::invalid_argument);
  });
  EXPECT_NO_THROW(async->submit(job_for(directory / "run", noise({1000}, 1), kRank)).written.get());
  handler.wait();
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
