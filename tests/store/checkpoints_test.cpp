// Finding checkpoints, and cleaning up.

#include "plan/pt_layout.h"
#include "store/block_drain.h"
#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/latest.h"
#include "store/on_disk.h"
#include "store/temporary_name.h"
#include "support/launch_environment.h"
#include "support/log_lines.h"
#include "support/own_mounts.h"

#include <ckptring/checkpoints.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>

namespace ckptring::store::test {
namespace {

/// The bytes of a small checkpoint: one dict with one number in it.
std::vector<std::byte> checkpoint_bytes(const RankInfo& rank, std::optional<std::int64_t> step,
                                        const Metadata& metadata,
                                        const std::optional<SaveId>& id = {}) {
  StateRecorder recorder;
  recorder.begin_dict();
  recorder.key("x");
  recorder.integer(7);
  recorder.end_dict();
  const plan::FilePlan plan = plan::lay_out_pt(recorder.recording(), {rank, step, metadata, id});
  std::vector<std::byte> bytes(plan.total_bytes());
  plan.for_each_piece(0, bytes.size(), [&](const plan::FilePlan::Piece& piece) {
    std::memcpy(bytes.data() + piece.file_offset, piece.literal, piece.size);
  });
  return bytes;
}

class Checkpoints : public ::testing::Test {
 protected:
  void save(const std::string& name, std::optional<std::int64_t> step, int world_size = 1,
            const Metadata& metadata = {}) {
    for (int rank = 0; rank < world_size; ++rank)
      save_rank(name, step, {rank, world_size}, metadata);
  }
  void save_rank(const std::string& name, std::optional<std::int64_t> step, RankInfo rank,
                 const Metadata& metadata = {}, const std::optional<SaveId>& id = {}) {
    const std::vector<std::byte> bytes = checkpoint_bytes(rank, step, metadata, id);
    const SaveTarget where = make_target(system_files(), scratch_ / name, rank, bytes.size());
    save_all(*make_file_sink(system_files(), {}, where, nullptr), bytes, 65536);
  }
  std::string newest(double wait_secs = 0) const {
    const auto found = latest(scratch_.path(), {wait_secs});
    return found ? std::filesystem::path(found->path).filename().string() : "";
  }
  std::string leave(const std::string& directory, double age_secs) const {
    std::filesystem::create_directories(directory);
    std::string path = directory + "/" + new_temporary_name("checkpoint_0.pt");
    write_text(path, "torn");
    ::timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec -= static_cast<time_t>(age_secs);
    const ::timespec times[2] = {now, now};
    EXPECT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    return path;
  }
  static os::UniqueFd lock(const std::string& path) {
    os::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), 0);
    return fd;
  }

  TemporaryDirectory scratch_;
};

TEST_F(Checkpoints, LatestIsTheOneWithTheHighestStepWhateverItsName) {
  save("c_3", 10);
  save("a_1", 30);
  save("b_2", 20);
  const auto found = latest(scratch_.path(), {0});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, scratch_ / "a_1");
  EXPECT_EQ(found->step, 30);
  EXPECT_EQ(found->world_size, 1);
}

TEST_F(Checkpoints, LatestGoesByTheLastNumberInTheNameWithoutAStep) {
  save("v2_epoch_9", {});
  save("v1_epoch_10", {});
  save("final", {});
  EXPECT_EQ(newest(), "v1_epoch_10");
}

TEST_F(Checkpoints, LatestComparesStepsAsNumbers) {
  save("step_9", 9);
  save("step_10", 10);
  save("step_-11", -11);
  EXPECT_EQ(newest(), "step_10");
}

TEST_F(Checkpoints, FilesOfTwoAttemptsAtOneStepAreNoCheckpoint) {
  const SaveId first{{1}};
  const SaveId second{{2}};
  save_rank("step_1", 1, {0, 2}, {}, first);
  save_rank("step_1", 1, {1, 2}, {}, first);
  save_rank("step_2", 2, {0, 2}, {}, second);
  save_rank("step_2", 2, {1, 2}, {}, first);  // its second one has not come to its end
  EXPECT_EQ(newest(), "step_1");
  save_rank("step_2", 2, {1, 2});  // nor is one without an id of it
  EXPECT_EQ(newest(), "step_1");
  save_rank("step_2", 2, {1, 2}, {}, second);
  EXPECT_EQ(newest(), "step_2");
  EXPECT_EQ(latest(scratch_.path(), {0})->save_id, second);
}

TEST_F(Checkpoints, FilesWithoutIdsAreJudgedByWhatTheySayWithAWarning) {
  save("step_1", 1);
  save("step_2", 2, 2);
  const ckptring::test::LogLines lines;
  EXPECT_EQ(newest(), "step_2");
  const auto warned = lines.with("step_2 has no save ids");
  ASSERT_EQ(warned.size(), 1u);
  EXPECT_EQ(warned[0].level, LogLevel::warn);
  save("step_3", 3);
  EXPECT_EQ(newest(), "step_3");
  EXPECT_EQ(lines.with("has no save ids").size(), 1u) << "one rank needs none";
}

TEST_F(Checkpoints, LatestHandsBackTheMetadata) {
  const Metadata metadata = {{"run", std::string("blue")}, {"loss", 0.5}};
  save("step_1", 1, 2, metadata);
  const auto found = latest(scratch_.path(), {0});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->metadata, metadata);
  EXPECT_EQ(found->world_size, 2);
  EXPECT_EQ(found->rank, 0);
}

TEST_F(Checkpoints, LatestIsNothingWhereThereIsNone) {
  EXPECT_EQ(newest(), "");
  std::filesystem::create_directories(scratch_ / "step_1");
  write_text(scratch_ / "step_1/notes.txt", "hello");
  write_text(scratch_ / "checkpoint_0.pt", "not in a subdirectory");
  EXPECT_EQ(newest(), "");
}

TEST_F(Checkpoints, LatestIsNothingBeforeTheDirectoryWasMade) {
  EXPECT_FALSE(latest(scratch_ / "none/at all", {0}).has_value());
}

TEST_F(Checkpoints, LatestNeedsADirectory) {
  write_text(scratch_ / "file", "text");
  EXPECT_EQ(error_of([&] { (void)latest(scratch_ / "file", {0}); }).code(),
            ErrorCode::invalid_argument);
  EXPECT_EQ(error_of([&] { (void)latest(scratch_.path(), {-1}); }).code(),
            ErrorCode::invalid_argument);
}

TEST_F(Checkpoints, LatestSkipsACheckpointThatLacksARank) {
  save("step_1", 1, 3);
  save_rank("step_2", 2, {0, 3});
  save_rank("step_2", 2, {2, 3});
  EXPECT_EQ(newest(), "step_1");
  save_rank("step_2", 2, {1, 3});
  EXPECT_EQ(newest(), "step_2");
}

TEST_F(Checkpoints, LatestSkipsACheckpointWhoseRanksDisagree) {
  save("step_1", 1, 2);
  save_rank("step_2", 2, {0, 2});
  save_rank("step_2", 3, {1, 2});
  EXPECT_EQ(newest(), "step_1") << "another step";
  save_rank("step_2", 2, {1, 2}, {{"run", std::string("red")}});
  EXPECT_EQ(newest(), "step_1") << "other metadata";
  std::filesystem::copy_file(scratch_ / "step_2/checkpoint_0.pt",
                             scratch_ / "step_2/checkpoint_1.pt",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(newest(), "step_1") << "another rank's file";
}

TEST_F(Checkpoints, LatestSkipsDamagedFiles) {
  save("step_1", 1);
  save("step_2", 2);
  std::filesystem::resize_file(scratch_ / "step_2/checkpoint_0.pt", 100);
  EXPECT_EQ(newest(), "step_1");
}

TEST_F(Checkpoints, LatestSkipsFilesOfALargerWorldThatWasOverwritten) {
  save("step_1", 1, 4);
  save("step_1", 2, 2);
  const auto found = latest(scratch_.path(), {0});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->world_size, 2);
  EXPECT_EQ(found->step, 2);
}

TEST_F(Checkpoints, LatestSkipsHiddenDirectories) {
  save("step_1", 1);
  save(".trash-step_2", 2);
  save(".snapshot/hourly", 3);
  EXPECT_EQ(newest(), "step_1");
  // Nor is anything that happens there waited for.
  const std::string alive = leave(scratch_ / ".trash-step_3", 0);
  const os::UniqueFd holder = lock(alive);
  const ckptring::test::LogLines log(LogLevel::warn);
  EXPECT_EQ(newest(0.01), "step_1");
  EXPECT_TRUE(log.with(alive).empty());
}

TEST_F(Checkpoints, LatestSkipsADirectoryThatItMayNotLookIntoWithOneWarning) {
  save("step_1", 1);
  for (const char* name : {"listed_only_2", "closed_3"}) save(name, 2);
  const ckptring::test::InOwnMounts said = ckptring::test::in_own_mounts([&]() -> std::string {
    if (::chmod((scratch_ / "listed_only_2").c_str(), 0444) != 0 ||
        ::chmod((scratch_ / "closed_3").c_str(), 0) != 0 ||
        ::chmod(scratch_.path().c_str(), 0755) != 0) {
      return "chmod";
    }
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "become nobody";
    const ckptring::test::LogLines log(LogLevel::warn);
    const std::string found = newest(0.05);
    if (found != "step_1") return "found " + found;
    for (const char* name : {"listed_only_2", "closed_3"}) {
      const auto lines = log.with(scratch_ / name);
      if (lines.size() != 1) return std::to_string(lines.size()) + " lines about " + name;
      if (lines[0].text.find("Permission denied") == std::string::npos) return lines[0].text;
    }
    return "";
  });
  for (const char* name : {"listed_only_2", "closed_3"}) {
    std::filesystem::permissions(scratch_ / name, std::filesystem::perms(0755));
  }
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

TEST_F(Checkpoints, LatestDoesNotDoWithoutTheNewestForWantOfADescriptorOrOfTheDisk) {
  class Fails final : public ForwardingFiles {
   public:
    int reason = 0;
    int list(const std::string& path, std::vector<std::string>& names) override {
      errno = reason;
      return path.ends_with("step_2") ? -1 : ForwardingFiles::list(path, names);
    }
  } files;
  save("step_1", 1);
  save("step_2", 2);
  for (const int reason : {EMFILE, ENOMEM, EIO, ESTALE, ENOTCONN}) {
    files.reason = reason;
    const Error error = error_of([&] { (void)latest_in(files, scratch_.path(), {0}); });
    EXPECT_EQ(error.errno_value(), reason) << error.what();
    EXPECT_EQ(error.path(), scratch_ / "step_2");
  }
  files.reason = EACCES;
  EXPECT_EQ(latest_in(files, scratch_.path(), {0})->step, 1);
}

TEST_F(Checkpoints, LatestDoesNotTakeWhatItCannotOpenForWantOfADescriptorForDead) {
  class Fails final : public ForwardingFiles {
   public:
    std::string fails;
    int open(const std::string& path, int flags, mode_t mode) override {
      if (path != fails) return ForwardingFiles::open(path, flags, mode);
      errno = EMFILE;
      return -1;
    }
  } files;
  save("step_1", 1);
  files.fails = leave(scratch_ / "step_2", 0);
  const Error error = error_of([&] { (void)latest_in(files, scratch_.path(), {0}); });
  EXPECT_EQ(error.errno_value(), EMFILE) << error.what();
}

TEST_F(Checkpoints, LatestDoesNotWaitForTheDead) {
  save("step_1", 1);
  leave(scratch_ / "step_2", 0);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(newest(60), "step_1");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST_F(Checkpoints, LatestWaitsForTheLivingAndThenCountsTheirs) {
  save("step_1", 1);
  const std::vector<std::byte> bytes = checkpoint_bytes({0, 1}, 2, {});
  const SaveTarget where = make_target(system_files(), scratch_ / "step_2", {0, 1}, bytes.size());
  const auto saving = make_file_sink(system_files(), {}, where, nullptr);
  ASSERT_TRUE(saving->begin(Beginning::fresh));
  std::thread other([&] {
    // `latest` has looked by then, or not: right in both cases.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    write_blocks(*saving, bytes, 65536, 0, 1);
    saving->commit(kIgnorePhases);
  });
  EXPECT_EQ(newest(30), "step_2");
  other.join();
}

/// A save that has taken its name, as a checkpoint process does before it renames the one before.
class ClaimedSave {
 public:
  ClaimedSave(const std::string& directory, int step)
      : bytes_(checkpoint_bytes({0, 1}, step, {})),
        sink_(make_file_sink(system_files(), {},
                             make_target(system_files(), directory, {0, 1}, bytes_.size()),
                             nullptr)) {
    EXPECT_TRUE(sink_->claim(Beginning::fresh));
  }
  void commit() {
    EXPECT_TRUE(sink_->begin(Beginning::fresh));
    write_blocks(*sink_, bytes_, 65536, 0, 1);
    sink_->commit(kIgnorePhases);
  }

 private:
  std::vector<std::byte> bytes_;
  std::unique_ptr<SaveSink> sink_;
};

// While directories are looked at one after the other, saves go on: the one under way is committed
// where it was not looked at yet, and the next one is claimed where nobody looks again.
TEST_F(Checkpoints, LatestIsNotDeceivedBySavesThatFollowOneAnother) {
  class Meanwhile final : public ForwardingFiles {
   public:
    std::function<void(const std::string& directory)> listed;
    int list(const std::string& path, std::vector<std::string>& names) override {
      const int result = ForwardingFiles::list(path, names);
      listed(std::filesystem::path(path).filename());
      return result;
    }
  } files;
  for (const bool overwrites : {false, true}) {
    for (const char* name : {"a", "b", "c"}) {
      std::filesystem::remove_all(scratch_ / name);
      std::filesystem::create_directory(scratch_ / name);
      if (overwrites) save(name, 0);
    }
    std::optional<ClaimedSave> in_c(std::in_place, scratch_ / "c", 1);
    std::optional<ClaimedSave> in_b;
    std::optional<ClaimedSave> in_a;
    int looks_while_the_last_one_is_under_way = 0;
    files.listed = [&](const std::string& directory) {
      if (directory == "b" && !in_b) {
        in_b.emplace(scratch_ / "b", 2);
        in_c->commit();
      } else if (directory == "a" && in_b && !in_a) {
        in_a.emplace(scratch_ / "a", 3);
        in_b->commit();
      } else if (directory == "c" && in_a && ++looks_while_the_last_one_is_under_way == 3) {
        in_a->commit();
      }
    };
    const auto found = latest_in(files, scratch_.path(), {60});
    ASSERT_TRUE(found);
    EXPECT_EQ(found->step, 3);
  }
}

TEST_F(Checkpoints, LatestGivesTheNewestCompleteOneAfterItsPatienceWithAWarning) {
  save("step_1", 1);
  const std::string alive = leave(scratch_ / "step_2", 0);
  const os::UniqueFd holder = lock(alive);
  const ckptring::test::LogLines log(LogLevel::warn);
  {
    const ckptring::test::LaunchEnvironment launch{{"RANK", "5"}, {"WORLD_SIZE", "8"}};
    EXPECT_EQ(newest(0.05), "step_1");
  }
  const auto lines = log.with(alive);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].level, LogLevel::warn);
  EXPECT_TRUE(lines[0].text.starts_with("[rank 5] ")) << lines[0].text;
}

TEST_F(Checkpoints, CleanRemovesOldTemporariesThatNobodyHolds) {
  save("step_1", 1);
  const std::string dead = leave(scratch_ / "step_2", 7200);
  const std::string deep = leave(scratch_ / "a/b/c", 7200);
  const std::string young = leave(scratch_ / "step_3", 1800);
  const std::string alive = leave(scratch_ / "step_4", 7200);
  const os::UniqueFd holder = lock(alive);
  write_text(scratch_ / "step_1/.hidden", "mine");
  CleanResult result = clean(scratch_.path());
  std::sort(result.removed.begin(), result.removed.end());
  std::sort(result.in_use.begin(), result.in_use.end());
  std::vector<std::string> removed = {dead, deep};
  std::sort(removed.begin(), removed.end());
  EXPECT_EQ(result.removed, removed);
  EXPECT_EQ(result.in_use, (std::vector<std::string>{young, alive}));
  EXPECT_FALSE(exists(dead));
  EXPECT_FALSE(exists(deep));
  EXPECT_TRUE(exists(young));
  EXPECT_TRUE(exists(alive));
  EXPECT_TRUE(exists(scratch_ / "step_1/checkpoint_0.pt"));
  EXPECT_TRUE(exists(scratch_ / "step_1/.hidden"));
}

TEST_F(Checkpoints, CleanTakesAnotherAge) {
  const std::string young = leave(scratch_ / "step_3", 10);
  EXPECT_EQ(clean(scratch_.path(), 5).removed, std::vector<std::string>{young});
}

TEST_F(Checkpoints, CleanDoesNotFollowLinks) {
  const TemporaryDirectory elsewhere;
  const std::string outside = leave(elsewhere / "x", 7200);
  std::filesystem::create_directory_symlink(elsewhere.path(), scratch_ / "link");
  EXPECT_TRUE(clean(scratch_.path()).removed.empty());
  EXPECT_TRUE(exists(outside));
}

TEST_F(Checkpoints, ALinkThatLeadsToNothingIsNamed) {
  std::filesystem::create_directory_symlink("nothing", scratch_ / "link");
  for (const std::string& path : {scratch_ / "link", scratch_ / "link/run"}) {
    for (const Error& error :
         {error_of([&] { (void)latest(path, {0}); }), error_of([&] { (void)clean(path); })}) {
      EXPECT_EQ(error.code(), ErrorCode::not_found);
      EXPECT_NE(error.cause().find(scratch_ / "link is a symbolic link"), std::string::npos)
          << error.what();
    }
  }
  // Within the directory it is nobody's.
  save("step_1", 1);
  EXPECT_EQ(newest(), "step_1");
  EXPECT_NO_THROW((void)clean(scratch_.path()));
}

TEST_F(Checkpoints, CleanGoesPastADirectoryThatItMayNotLookInto) {
  const std::string dead = leave(scratch_ / "step_2", 7200);
  for (const char* name : {"a", "z"}) (void)leave(scratch_ / name, 7200);
  const ckptring::test::InOwnMounts said = ckptring::test::in_own_mounts([&]() -> std::string {
    for (const auto& [path, mode] : {std::pair(scratch_.path(), 0777),
                                     {scratch_ / "step_2", 0777},
                                     {dead, 0666},
                                     {scratch_ / "a", 0444},
                                     {scratch_ / "z", 0}}) {
      if (::chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) return "chmod";
    }
    if (::geteuid() == 0 && ::setuid(65534) != 0) return "become nobody";
    const CleanResult result = clean(scratch_.path());
    return result.removed == std::vector<std::string>{dead} ? "" : "it was not removed";
  });
  for (const char* name : {"a", "z"}) {
    std::filesystem::permissions(scratch_ / name, std::filesystem::perms(0755));
  }
  if (!said.refused.empty()) GTEST_SKIP() << said.refused;
  EXPECT_EQ(said.failure, "");
}

TEST_F(Checkpoints, CleanNeedsADirectoryAndAnAge) {
  EXPECT_EQ(error_of([&] { (void)clean(scratch_ / "none"); }).code(), ErrorCode::not_found);
  EXPECT_EQ(error_of([&] { (void)clean(scratch_.path(), -1); }).code(),
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace ckptring::store::test
