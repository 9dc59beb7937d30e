#include "save/sync_save.h"

#include "support/mapping_flags.h"
#include "support/materialize.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::save {
namespace {

TEST(SyncSave, IsDurableOnReturnWithAReport) {
  const test::TemporaryDirectory directory;
  SyncSave sync({}, {}, {});
  const SaveReport report =
      sync.run(test::job_for(directory / "a/b/c", test::noise({10'000'000, 5}, 1)));
  EXPECT_EQ(report.path, directory / "a/b/c/checkpoint_0.pt");
  EXPECT_EQ(std::filesystem::file_size(report.path), report.bytes);
  EXPECT_GT(report.fsync_seconds, 0);
}

TEST(PrivateBlocks, AreNotCopiedToForkedChildren) {
  const PrivateBlocks blocks(2);
  EXPECT_NE(test::mapping_flags(&blocks.memory().front()).find(" dc "), std::string::npos);
  EXPECT_NE(test::mapping_flags(&blocks.memory().back()).find(" dc "), std::string::npos);
}

TEST(PrivateBlocks, BeginAtAHugePage) {
  const PrivateBlocks one(1);
  const PrivateBlocks three(3);
  for (const PrivateBlocks* blocks : {&one, &three}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks->memory().data()) % (2u << 20), 0u);
  }
  EXPECT_EQ(three.memory().size(), 3 * PrivateBlocks::kBlockBytes);
}

TEST(SyncSave, WritesWhatWasPlannedThroughFewBlocksThatAreUsedAgainAndAgain) {
  const test::TemporaryDirectory directory;
  CheckpointWriterConfig config;
  config.queue_depth = 1;  // hence two blocks of 4 MiB
  SyncSave sync(config, {}, {});
  const auto storages = test::noise({30'000'000, 5, 11'000'000}, 1);
  SaveJob job = test::job_for(directory / "it", storages);
  const std::vector<std::byte> expected = test::materialize(job.plan, *storages);
  const std::string written = test::contents_of(sync.run(std::move(job)).path);
  ASSERT_EQ(written.size(), expected.size());
  EXPECT_EQ(std::memcmp(written.data(), expected.data(), expected.size()), 0);
}

TEST(SyncSave, WritesIdenticalFilesFromIdenticalStates) {
  const test::TemporaryDirectory directory;
  SyncSave sync({}, {}, {});
  (void)sync.run(test::job_for(directory / "a", test::noise({1'000'000, 5}, 1)));
  (void)sync.run(test::job_for(directory / "b", test::noise({1'000'000, 5}, 1)));
  EXPECT_TRUE(test::contents_of(directory / "a/checkpoint_0.pt") ==
              test::contents_of(directory / "b/checkpoint_0.pt"));
}

TEST(SyncSave, LeavesNothingBehindWhenItFails) {
  const test::TemporaryDirectory directory;
  SyncSave sync({}, {}, {});
  SaveJob job = test::job_for(directory / "new/run", test::noise({1'000'000}, 1));
  job.check_unchanged = [] {
    throw Error(ErrorCode::changed_while_staging, "save", "", "changed");
  };
  EXPECT_THROW((void)sync.run(std::move(job)), Error);
  EXPECT_FALSE(std::filesystem::exists(directory / "new"));
}

}  // namespace
}  // namespace ckptring::save
