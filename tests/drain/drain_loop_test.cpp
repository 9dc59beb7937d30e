// The checkpoint process's work, over a ring and a disk that a test holds in its hands.
#include "drain/drain_loop.h"

#include "os/eventfd.h"
#include "os/umask.h"
#include "ring/bell_set.h"
#include "ring/producer.h"
#include "ring/progress_of.h"
#include "save/sync_save.h"
#include "store/directories.h"
#include "store/drain_tables.h"
#include "store/file_at.h"
#include "store/file_sink.h"
#include "store/forwarding_files.h"
#include "support/materialize.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::drain {
namespace {

using ring::Progress;
using store::test::ForwardingFiles;
using test::contents_of;
using test::job_for;
using test::noise;

constexpr std::uint64_t kBlock = 16 << 10;
/// Longer than any test may take: whoever waits for that fails it.
constexpr double kForEver = 3600;

/// Thrown where a process is to die: no handler of the loop's takes it, and nothing is undone.
struct Death {};

/// The disk, with a look at some calls before they are made.
class WatchedFiles final : public ForwardingFiles {
 public:
  /// Returns 0, or the error that the call fails with instead.
  using Look = std::function<int(const std::string& path)>;
  Look before_creating;
  Look before_sync;
  Look before_rename;
  Look before_unlink;
  Look before_look;

  int open(const std::string& path, int flags, mode_t mode) override {
    if ((flags & O_CREAT) == 0) return ForwardingFiles::open(path, flags, mode);
    return unless(before_creating, path, [&] { return ForwardingFiles::open(path, flags, mode); });
  }
  int fsync(int fd) override {
    return unless(before_sync, "", [&] { return ForwardingFiles::fsync(fd); });
  }
  int rename(const std::string& from, const std::string& to) override {
    return unless(before_rename, to, [&] { return ForwardingFiles::rename(from, to); });
  }
  int stat(const std::string& path, struct ::stat& out, bool follow) override {
    return unless(before_look, path, [&] { return ForwardingFiles::stat(path, out, follow); });
  }
  int unlink(const std::string& path) override {
    return unless(before_unlink, path, [&] { return ForwardingFiles::unlink(path); });
  }

 private:
  template <class Call>
  static int unless(const Look& look, const std::string& path, const Call& call) {
    if (const int error = look ? look(path) : 0; error != 0) {
      errno = error;
      return -1;
    }
    return call();
  }
};

ring::Settings settings(double orphan_timeout_secs) {
  ring::Settings settings{};
  settings.global_world_size = 1;
  settings.write_mode = static_cast<std::int32_t>(WriteMode::buffered);
  settings.queue_depth = 4;
  settings.threads = 2;
  settings.busy_timeout_secs = kForEver;
  settings.orphan_timeout_secs = orphan_timeout_secs;
  return settings;
}

class DrainLoopTest : public ::testing::Test {
 protected:
  explicit DrainLoopTest(double orphan_timeout_secs = kForEver)
      : segment_(ring::Segment::create({kBlock, 16, 3, 16 << 10}, settings(orphan_timeout_secs))) {}

  /// A predecessor dies as it renames the save's file, or as soon as it has.
  void die_at_rename(std::uint64_t save, bool renamed) {
    WatchedFiles dying;
    dying.before_rename = [&](const std::string& to) -> int {
      if (renamed) std::filesystem::rename(temporaries_[save], to);
      throw Death{};
    };
    EXPECT_THROW(run(dying), Death);
  }

  /// What a trainer does with a save of its own to `name`. Returns the file that is to come.
  std::string stage(const std::string& name, std::uint64_t seed, std::uint32_t umask = 0) {
    const auto storages = noise({50'000, 7}, seed);
    const plan::FilePlan plan = job_for("", storages).plan;
    const store::SaveTarget target =
        store::make_target(store::system_files(), directory_ / name, {}, plan.total_bytes());
    ring::Description description{};
    const auto sizes = store::DrainTableSizes::of(plan, kBlock);
    description.payload_count = sizes.payloads;
    description.fixup_count = sizes.fixups;
    description.ledger_count = sizes.ledger;
    description.plan_bytes = sizes.bytes();
    description.total_bytes = plan.total_bytes();
    description.missing_levels = target.missing_levels;
    description.umask = umask;
    description.replaced = file_at(name);
    ring::copy_text(description.directory, sizeof description.directory, target.directory);
    ring::copy_text(description.final_name, sizeof description.final_name, target.final_name);
    ring::copy_text(description.temporary_name, sizeof description.temporary_name,
                    target.temporary_name);
    const test::Bytes file = test::materialize(plan, *storages);
    const std::uint64_t save = producer_.open(description, [&](std::span<std::byte> tables) {
      store::fill_drain_tables(plan, kBlock, sizes, tables);
    });
    temporaries_[save] = store::path_in(target.directory, target.temporary_name);
    while (auto claim = producer_.try_claim()) {
      std::memcpy(claim->bytes().data(), file.data() + claim->file_offset(), claim->bytes().size());
      claim->publish();
    }
    producer_.seal();
    return {reinterpret_cast<const char*>(file.data()), file.size()};
  }

  /// What another checkpointer does.
  std::string save_elsewhere(const std::string& name, std::uint64_t seed) const {
    save::SyncSave sync({}, {}, {});
    return contents_of(sync.run(job_for(directory_ / name, noise({9'000}, seed))).path);
  }

  void end_trainer() const { os::ring_bell(trainer_.get()); }
  void ask_to_end() const { segment_.view().supervisor().shutdown.store(1); }
  /// A checkpoint process, from its start to its end.
  DrainLoop::End run(store::FileSystem& files = store::system_files()) {
    WriterSetup writer;
    DrainLoop loop(segment_.view(), bells_.bells(), {trainer_.get()}, files, writer, 022);
    return loop.run(++incarnation_);
  }

  [[nodiscard]] Progress progress(std::uint64_t save) const {
    return ring::progress_of(segment_.view().record(save), save);
  }
  [[nodiscard]] ErrorCode failure(std::uint64_t save) const {
    return static_cast<ErrorCode>(segment_.view().record(save).outcome.error_code);
  }
  [[nodiscard]] const ring::Outcome& outcome(std::uint64_t save) const {
    return segment_.view().record(save).outcome;
  }
  [[nodiscard]] os::FileIdentity file_at(const std::string& name) const {
    return store::file_at(store::system_files(), file_of(name));
  }
  [[nodiscard]] std::string file_of(const std::string& name) const {
    return directory_ / name + "/checkpoint_0.pt";
  }
  [[nodiscard]] std::string seen(const std::string& name) const {
    return contents_of(file_of(name));
  }
  [[nodiscard]] std::ptrdiff_t entries(const std::string& name) const {
    return std::distance(std::filesystem::directory_iterator(directory_ / name), {});
  }

  test::TemporaryDirectory directory_;
  ring::Segment segment_;
  ring::BellSet bells_;
  ring::Producer producer_{segment_.view(), bells_.bells()};
  os::UniqueFd trainer_ = os::make_eventfd();  ///< in place of its pidfd
  std::map<std::uint64_t, std::string> temporaries_;
  std::uint32_t incarnation_ = 0;
};

class ImpatientOrphan : public DrainLoopTest {
 protected:
  ImpatientOrphan() : DrainLoopTest(0.2) {}
};

TEST_F(ImpatientOrphan, GivesUpWhenNothingReachesTheDisk) {
  class Hanging final : public ForwardingFiles {
   public:
    std::promise<void> moves_again;

    ssize_t pwrite(int fd, const void* data, std::size_t size, std::uint64_t offset,
                   int rwf_flags) override {
      moving_.wait();
      return ForwardingFiles::pwrite(fd, data, size, offset, rwf_flags);
    }

   private:
    std::shared_future<void> moving_ = moves_again.get_future().share();
  } files;
  (void)stage("run", 1);
  end_trainer();
  WriterSetup writer;
  DrainLoop loop(segment_.view(), bells_.bells(), {trainer_.get()}, files, writer, 022);
  EXPECT_EQ(loop.run(1), DrainLoop::End::orphaned) << "though its writes still hang";
  EXPECT_EQ(seen("run"), "");
  files.moves_again.set_value();
}

// ---- whose file is under the final name

TEST_F(DrainLoopTest, AnOrphanRenamesOverWhatWasThereWhenItsSaveWasAnnounced) {
  (void)save_elsewhere("run", 1);
  const std::string file = stage("run", 2);
  end_trainer();
  EXPECT_EQ(run(), DrainLoop::End::trainer_gone);
  EXPECT_EQ(progress(1), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

TEST_F(DrainLoopTest, AnOrphanNeverRenamesOverWhatAnotherCheckpointerHasSavedSince) {
  (void)save_elsewhere("run", 1);
  (void)stage("run", 2);
  (void)stage("new", 3);
  end_trainer();
  const std::string newer = save_elsewhere("run", 4);
  const std::string new_one = save_elsewhere("new", 5);
  EXPECT_EQ(run(), DrainLoop::End::trainer_gone);
  for (const std::uint64_t save : {1, 2}) {
    EXPECT_EQ(progress(save), Progress::failed);
    EXPECT_EQ(failure(save), ErrorCode::busy_elsewhere);
  }
  EXPECT_TRUE(seen("run") == newer);
  EXPECT_TRUE(seen("new") == new_one);
  EXPECT_EQ(entries("run"), 1) << "its temporary is left";
  EXPECT_EQ(entries("new"), 1) << "its temporary is left";
}

TEST_F(DrainLoopTest, AnOrphanRenamesOverWhatItsOwnEarlierSaveMade) {
  (void)stage("run", 1);
  const std::string file = stage("run", 2);  // announced when nothing was there
  end_trainer();
  EXPECT_EQ(run(), DrainLoop::End::trainer_gone);
  EXPECT_EQ(progress(1), Progress::committed);
  EXPECT_EQ(progress(2), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

TEST_F(DrainLoopTest, ASuccessorKnowsWhatTheEarlierSaveOfItsPredecessorMade) {
  (void)stage("run", 1);
  const std::string file = stage("run", 2);
  WatchedFiles dying;
  dying.before_rename = [this](const std::string&) -> int {
    if (progress(1) == Progress::committed) throw Death{};
    end_trainer();
    return 0;
  };
  EXPECT_THROW(run(dying), Death);
  EXPECT_EQ(run(), DrainLoop::End::trainer_gone);
  EXPECT_EQ(progress(2), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

TEST_F(DrainLoopTest, AnOrphanRenamesOverWhatWasThereWhenItGotTheNameFromALivingTrainer) {
  // The orphan of an earlier trainer commits while this one's save waits.
  const std::string file = stage("run", 1);
  (void)save_elsewhere("run", 2);
  WatchedFiles files;
  files.before_sync = [this](const std::string&) {
    end_trainer();
    return 0;
  };
  EXPECT_EQ(run(files), DrainLoop::End::trainer_gone);
  EXPECT_EQ(progress(1), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

TEST_F(DrainLoopTest, ALivingTrainersSaveReplacesWhateverIsThere) {
  const std::string file = stage("run", 1);
  (void)save_elsewhere("run", 2);
  WatchedFiles files;
  files.before_rename = [this](const std::string&) {
    ask_to_end();
    return 0;
  };
  EXPECT_EQ(run(files), DrainLoop::End::shutdown);
  EXPECT_EQ(progress(1), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

// ---- which file a save was renamed over: the trainer compares it with what it had put there

TEST_F(DrainLoopTest, ASaveTellsWhichFileItWasRenamedOver) {
  (void)save_elsewhere("run", 1);
  (void)stage("run", 2);
  (void)stage("new", 3);
  (void)save_elsewhere("run", 4);
  std::filesystem::create_directory(directory_ / "link");
  std::filesystem::create_symlink(directory_ / "elsewhere", file_of("link"));
  (void)stage("link", 5);
  const os::FileIdentity there = file_at("run");
  WatchedFiles files;
  files.before_rename = [this](const std::string& to) {
    if (to == file_of("link")) ask_to_end();
    return 0;
  };
  EXPECT_EQ(run(files), DrainLoop::End::shutdown);
  EXPECT_EQ(outcome(1).renamed_over, there);
  EXPECT_EQ(outcome(1).file, file_at("run"));
  EXPECT_FALSE(outcome(2).renamed_over.exists());
  EXPECT_FALSE(outcome(3).renamed_over.exists()) << "a link is no file of ours";
}

TEST_F(DrainLoopTest, ASuccessorTellsWhichFileItsPredecessorHasRenamedOver) {
  for (const bool renamed : {false, true}) {
    (void)save_elsewhere("run", 1);
    const os::FileIdentity there = file_at("run");
    (void)stage("run", 2);
    const std::uint64_t save = producer_.current_save();
    die_at_rename(save, renamed);
    ask_to_end();
    EXPECT_EQ(run(), DrainLoop::End::shutdown);
    EXPECT_EQ(outcome(save).renamed_over, there);
  }
}

TEST_F(DrainLoopTest, ASaveFailsWhereNobodyCanTellWhatItIsRenamedOver) {
  const std::string there = save_elsewhere("run", 1);
  (void)stage("run", 2);
  WatchedFiles files;
  int refused = 0;
  files.before_look = [&](const std::string& path) {
    if (path != file_of("run") || progress(1) != Progress::syncing) return 0;
    ++refused;
    return EIO;
  };
  files.before_rename = [this](const std::string&) {
    ask_to_end();
    return 0;
  };
  files.before_unlink = files.before_rename;  // should it fail
  EXPECT_EQ(run(files), DrainLoop::End::shutdown);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(progress(1), Progress::failed);
  EXPECT_EQ(failure(1), ErrorCode::io);
  EXPECT_TRUE(seen("run") == there);
}

// A trainer may make another checkpointer, and save, before the process of the first has begun.
TEST_F(DrainLoopTest, ASaveThatItsCheckpointerHasLeftBehindNeverReplacesANewerOne) {
  (void)save_elsewhere("known", 1);
  (void)stage("run", 2);
  const std::string known_file = stage("known", 3);
  ask_to_end();
  const std::string newer = save_elsewhere("run", 4);
  EXPECT_EQ(run(), DrainLoop::End::shutdown);
  EXPECT_EQ(progress(1), Progress::failed);
  EXPECT_EQ(failure(1), ErrorCode::busy_elsewhere);
  EXPECT_TRUE(seen("run") == newer);
  EXPECT_EQ(entries("run"), 1) << "its temporary is left";
  EXPECT_EQ(progress(2), Progress::committed);
  EXPECT_TRUE(seen("known") == known_file);
}

TEST_F(DrainLoopTest, ASuccessorDoesNotTakeAnotherSavesFileForTheOneThatWasToBeRenamed) {
  for (const bool renamed : {false, true}) {
    (void)stage("run", 1);
    const std::uint64_t save = producer_.current_save();
    die_at_rename(save, renamed);
    // Nobody holds the lock now, and this one takes the temporary for a dead process's.
    const std::string newer = save_elsewhere("run", 2);
    ask_to_end();
    EXPECT_EQ(run(), DrainLoop::End::shutdown);
    EXPECT_EQ(progress(save), Progress::failed);
    EXPECT_EQ(failure(save), ErrorCode::busy_elsewhere);
    EXPECT_TRUE(seen("run") == newer);
  }
}

TEST_F(DrainLoopTest, ASuccessorKnowsTheFileThatItsPredecessorHasRenamed) {
  (void)save_elsewhere("run", 1);
  const std::string file = stage("run", 2);
  WatchedFiles dying;
  dying.before_rename = [&](const std::string& to) -> int {
    std::filesystem::rename(temporaries_[1], to);
    throw Death{};
  };
  EXPECT_THROW(run(dying), Death);
  ask_to_end();
  EXPECT_EQ(run(), DrainLoop::End::shutdown);
  EXPECT_EQ(progress(1), Progress::committed);
  EXPECT_TRUE(seen("run") == file);
}

TEST_F(DrainLoopTest, AnOrphanDoesNotWaitForANameThatAnotherCheckpointerSavesTo) {
  (void)stage("run", 1);
  const store::SaveTarget target =
      store::make_target(store::system_files(), directory_ / "run", {}, 100);
  const auto newer = store::make_file_sink(store::system_files(), {}, target, nullptr);
  ASSERT_TRUE(newer->begin(store::Beginning::fresh));
  end_trainer();
  EXPECT_EQ(run(), DrainLoop::End::trainer_gone);
  EXPECT_EQ(failure(1), ErrorCode::busy_elsewhere);
  EXPECT_EQ(entries("run"), 1) << "the other one's temporary";
}

// ---- no moment in which others see no save under way

/// Whether somebody has locked the file.
bool locked(const std::string& path) {
  const os::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0;
}

TEST_F(DrainLoopTest, TheNextSaveHasLockedItsTemporaryBeforeOneIsRenamed) {
  for (const std::string second : {"run", "other"}) {
    const std::string first_file = stage("run", 1);
    const std::string second_file = stage(second, 2);
    const std::uint64_t save = producer_.current_save();
    WatchedFiles files;
    int renames = 0;
    files.before_rename = [&](const std::string&) {
      if (++renames == 1) {
        EXPECT_TRUE(locked(temporaries_[save]));
        EXPECT_EQ(std::filesystem::file_size(temporaries_[save]), 0u) << "space is reserved twice";
      }
      return 0;
    };
    ask_to_end();
    EXPECT_EQ(run(files), DrainLoop::End::shutdown);
    EXPECT_EQ(renames, 2);
    EXPECT_TRUE(seen(second) == second_file);
    EXPECT_TRUE(seen("run") == (second == "run" ? second_file : first_file));
    EXPECT_EQ(entries("run"), 1);
    std::filesystem::remove_all(directory_ / "run");
  }
}

TEST_F(DrainLoopTest, EachTemporaryHasTheModeOfItsOwnSavesUmask) {
  const os::ScopedUmask of_the_process(022);
  (void)stage("first", 1, ring::kUmaskKnown | 077);
  (void)stage("second", 2, ring::kUmaskKnown);
  (void)stage("third", 3);  // not known
  const auto mode_of = [](const std::string& path) {
    return std::filesystem::status(path).permissions();
  };
  WatchedFiles files;
  std::uint64_t renames = 0;
  files.before_rename = [&](const std::string&) {
    constexpr std::array<unsigned, 3> kModes{0600, 0666, 0644};
    EXPECT_EQ(mode_of(temporaries_[renames + 1]), std::filesystem::perms(kModes.at(renames)));
    // Claimed ahead by then.
    if (++renames < 3) {
      EXPECT_EQ(mode_of(temporaries_[renames + 1]), std::filesystem::perms(kModes.at(renames)));
    }
    return 0;
  };
  ask_to_end();
  EXPECT_EQ(run(files), DrainLoop::End::shutdown);
  EXPECT_EQ(renames, 3u);
  EXPECT_EQ(mode_of(directory_ / "first"), std::filesystem::perms(0700));
  EXPECT_EQ(mode_of(directory_ / "second"), std::filesystem::perms(0777));
  EXPECT_EQ(mode_of(directory_ / "third"), std::filesystem::perms(0755));
  EXPECT_EQ(os::umask_of_this_thread(), mode_t{022});
}

TEST_F(DrainLoopTest, TheNextSaveHasLockedItsTemporaryBeforeAFailedOneIsRemoved) {
  (void)stage("run", 1);
  const std::string file = stage("other", 2);
  WatchedFiles files;
  files.before_sync = [this](const std::string&) {
    return progress(1) == Progress::syncing ? EIO : 0;
  };
  int removed = 0;
  files.before_unlink = [&](const std::string& path) {
    if (path == temporaries_[1]) {
      ++removed;
      EXPECT_TRUE(locked(temporaries_[2]));
    }
    return 0;
  };
  ask_to_end();
  EXPECT_EQ(run(files), DrainLoop::End::shutdown);
  EXPECT_EQ(removed, 1);
  EXPECT_EQ(progress(1), Progress::failed);
  EXPECT_TRUE(seen("other") == file);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "run"));
}

TEST_F(DrainLoopTest, ASaveThatCannotBeClaimedAheadFailsInItsOwnTurnOrNotAtAll) {
  for (const bool lasts : {false, true}) {
    const std::string first_file = stage("run", 1);
    const std::string second_file = stage("other", 2);
    const std::uint64_t second = producer_.current_save();
    WatchedFiles files;
    int refused = 0;
    files.before_creating = [&](const std::string& path) {
      if (path != temporaries_[second] || (!lasts && refused > 0)) return 0;
      ++refused;
      return EIO;
    };
    ask_to_end();
    EXPECT_EQ(run(files), DrainLoop::End::shutdown);
    EXPECT_EQ(refused, lasts ? 2 : 1) << "once ahead, and in its turn";
    EXPECT_EQ(progress(second - 1), Progress::committed);
    EXPECT_TRUE(seen("run") == first_file);
    EXPECT_EQ(progress(second), lasts ? Progress::failed : Progress::committed);
    EXPECT_TRUE(seen("other") == (lasts ? "" : second_file));
    std::filesystem::remove_all(directory_ / "other");
  }
}

TEST_F(DrainLoopTest, ASuccessorGoesOnWithASaveThatWasClaimedAhead) {
  const std::string first_file = stage("run", 1);
  const std::string second_file = stage("other", 2);
  WatchedFiles dying;
  dying.before_rename = [](const std::string&) -> int { throw Death{}; };
  EXPECT_THROW(run(dying), Death);
  ASSERT_TRUE(std::filesystem::exists(temporaries_[2]));
  ask_to_end();
  EXPECT_EQ(run(), DrainLoop::End::shutdown);
  EXPECT_TRUE(seen("run") == first_file);
  EXPECT_TRUE(seen("other") == second_file);
  EXPECT_EQ(entries("other"), 1);
}

}  // namespace
}  // namespace ckptring::drain
