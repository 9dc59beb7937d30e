// Two processes that save to the same names in turn, and one that only looks as if.
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace ckptring::save {
namespace {

using test::job_for;
using test::LogLines;
using test::noise;

constexpr const char* kReplaced = "which this process has saved: is another process saving there";

/// Either path, behind one interface.
class Saver {
 public:
  explicit Saver(bool async) {
    if (!async) return;
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    async_ = std::make_unique<AsyncSave>(config, RankInfo{});
  }
  SaveReport save(const std::string& path, unsigned seed = 1) {
    SaveJob job = job_for(path, noise({20'000}, seed));
    return async_ ? async_->submit(std::move(job)).written.get() : sync_.run(std::move(job));
  }
  void close() {
    if (async_) return async_->close();
    sync_.close();
  }

 private:
  std::unique_ptr<AsyncSave> async_;
  SyncSave sync_{{}, {}, {}};
};

/// Another process, from its start to its end.
void in_another_process(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
}

class TwoSavers : public ::testing::TestWithParam<bool> {
 protected:
  std::string step(int number) const { return directory_ / "step_" + std::to_string(number); }
  std::string file(int number) const { return step(number) + "/checkpoint_0.pt"; }
  /// Of the same job, started twice: it saves what this process has saved.
  void save_elsewhere(int number) const {
    in_another_process([&] { (void)Saver(false).save(step(number), 99); });
  }

  test::TemporaryDirectory directory_;
  LogLines log_{LogLevel::warn};
  Saver saver_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Paths, TwoSavers, ::testing::Bool(),
                         [](const auto& path) { return path.param ? "Async" : "Sync"; });

TEST_P(TwoSavers, ThatTakeTurnsAreToldByTheNextSaveAndItsReport) {
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
  save_elsewhere(1);
  const SaveReport report = saver_.save(step(2));
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_NE(report.warnings[0].find(file(1)), std::string::npos) << report.warnings[0];
  EXPECT_NE(report.warnings[0].find(kReplaced), std::string::npos) << report.warnings[0];
  EXPECT_EQ(log_.with(kReplaced).size(), 1u);
  EXPECT_TRUE(saver_.save(step(3)).warnings.empty()) << "told twice";
}

TEST_P(TwoSavers, OfOneNameAgainAndAgainAreToldToo) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(saver_.save(step(1)).warnings.size(), i == 0 ? 0u : 1u);
    save_elsewhere(1);
  }
}

TEST_P(TwoSavers, AreToldThoughOneOfThemLagsBehind) {
  for (int number = 0; number < 10; ++number) (void)saver_.save(step(number));
  save_elsewhere(2);
  EXPECT_EQ(saver_.save(step(10)).warnings.size(), 1u);
}

TEST_P(TwoSavers, AreToldAtTheEndIfThereIsNoNextSave) {
  (void)saver_.save(step(1));
  save_elsewhere(1);
  saver_.close();
  EXPECT_EQ(log_.with(kReplaced).size(), 1u);
}

TEST_P(TwoSavers, OfOneProcessAreNotMistakenForTwo) {
  Saver other(!GetParam());
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_TRUE(saver_.save(step(1), i).warnings.empty());
    EXPECT_TRUE(other.save(step(1), i).warnings.empty());
  }
  std::filesystem::create_directory_symlink(step(1), directory_ / "another name");
  (void)other.save(directory_ / "another name");
  EXPECT_TRUE(saver_.save(step(2)).warnings.empty());
  other.close();
  saver_.close();
  EXPECT_TRUE(log_.with(kReplaced).empty());
}

TEST_P(TwoSavers, AreNotSeenInAFileThatWasRemovedOrMovedOrCopiedWithItsTime) {
  for (int number = 1; number <= 4; ++number) (void)saver_.save(step(number));
  std::filesystem::remove(file(1));
  std::filesystem::rename(step(2), directory_ / "best");
  const auto time = std::filesystem::last_write_time(file(3));
  std::filesystem::copy_file(file(3), directory_ / "copy");
  std::filesystem::last_write_time(directory_ / "copy", time);
  std::filesystem::rename(directory_ / "copy", file(3));
  std::filesystem::last_write_time(file(4), time + std::chrono::hours(1));
  EXPECT_TRUE(saver_.save(step(5)).warnings.empty());
}

TEST_P(TwoSavers, AreNotSeenByAProcessThatResumesWhereAnotherOneEnded) {
  save_elsewhere(1);
  save_elsewhere(2);
  EXPECT_TRUE(saver_.save(step(2)).warnings.empty());
  EXPECT_TRUE(saver_.save(step(1)).warnings.empty());
}

TEST_P(TwoSavers, AreSeenByNoForkedChild) {
  (void)saver_.save(step(1), 1);
  (void)saver_.save(step(2), 1);
  std::array<int, 2> go{};
  ASSERT_EQ(::pipe(go.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    if (::read(go[0], &byte, 1) != 1) ::_exit(2);
    ::_exit(Saver(false).save(directory_ / "of the child").warnings.empty() ? 0 : 1);
  }
  EXPECT_TRUE(saver_.save(step(1), 2).warnings.empty());
  ASSERT_EQ(::write(go[1], "x", 1), 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (const int end : go) ::close(end);
}

/// What a checkpointer leaves to its process is committed when nobody watches, or gives way: then
/// the newest save is the one that stays.
TEST(OneSaver, IsNotMistakenForTwoWhereItsCheckpointerEndsBeforeTheSave) {
  const test::TemporaryDirectory directory;
  const LogLines log(LogLevel::warn);
  const std::string run = directory / "run";
  (void)Saver(false).save(run, 1);
  for (unsigned i = 0; i < 5; ++i) {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    const Future<void> staged = [&] {
      AsyncSave ends(config, {});
      return ends.submit(job_for(run, noise({3'000'000}, i))).staged;
    }();
    staged.get();
    const SaveReport newest = Saver(i % 2 == 0).save(run, 100 + i);
    EXPECT_TRUE(newest.warnings.empty());
    const std::string file = test::contents_of(newest.path);
    EXPECT_TRUE(Saver(i % 2 == 1).save(directory / "other").warnings.empty());
    EXPECT_TRUE(test::contents_of(newest.path) == file) << "an older save has replaced it";
  }
  EXPECT_TRUE(log.with(kReplaced).empty());
}

}  // namespace
}  // namespace ckptring::save
