// What an operator reads.
#include "save/async_save.h"

#include "support/forbid_calls.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

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
