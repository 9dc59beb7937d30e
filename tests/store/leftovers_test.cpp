// Savers that meet at one name, dead or alive.

#include "store/leftovers.h"
#include "store/drive.h"
#include "store/forwarding_files.h"
#include "store/on_disk.h"
#include "store/temporary_name.h"
#include "support/log_lines.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

namespace ckptring::store::test {
namespace {

class Leftovers : public ::testing::Test {
 protected:
  SaveTarget target(int rank = 0) const {
    return make_target(system_files(), scratch_.path(), {rank, 8}, bytes_.size());
  }
  std::string leave(const std::string& final_name) const {
    std::string path = scratch_ / new_temporary_name(final_name);
    write_text(path, "torn");
    return path;
  }
  static os::UniqueFd lock(const std::string& path) {
    os::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), 0);
    return fd;
  }
  static std::unique_ptr<SaveSink> sink(const SaveTarget& where, double busy_timeout_secs = 30) {
    CheckpointWriterConfig config;
    config.busy_timeout_secs = busy_timeout_secs;
    return make_file_sink(system_files(), config, where, nullptr);
  }

  /// A save that begins, as soon as it may, and is given up at once.
  static void begin_and_abort(SaveSink& one) {
    while (!one.begin(Beginning::fresh)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    one.abort();
  }

  TemporaryDirectory scratch_;
  std::vector<std::byte> bytes_ = random_bytes(10'000);
};

TEST_F(Leftovers, OfTheDeadAreRemovedForTheSameNameOnly) {
  const std::string dead = leave("checkpoint_0.pt");
  const std::string other_rank = leave("checkpoint_1.pt");
  write_text(scratch_ / ".hidden", "mine");
  const ckptring::test::LogLines log;
  SaveTarget ours = target();
  ours.save = 9;
  begin_and_abort(*sink(ours));
  EXPECT_FALSE(exists(dead));
  const auto lines = log.with(dead);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_TRUE(lines[0].text.starts_with("[rank 0] [save 9] removed ")) << lines[0].text;
  EXPECT_TRUE(exists(other_rank));
  EXPECT_TRUE(exists(scratch_ / ".hidden"));
}

TEST_F(Leftovers, AreRemovedByTheNextSaveToTheSameName) {
  const std::string dead = leave("checkpoint_0.pt");
  save_all(*sink(target()), bytes_, 4096);
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"checkpoint_0.pt"});
}

TEST_F(Leftovers, DoNotIncludeTheSavesOwnTemporary) {
  const SaveTarget own = target();
  write_text(scratch_ / own.temporary_name, "mine");
  EXPECT_FALSE(remove_dead_leftovers(system_files(), own).in_use);
  EXPECT_TRUE(exists(scratch_ / own.temporary_name));
}

TEST_F(Leftovers, OfTheLivingAreWaitedFor) {
  const std::string alive = leave("checkpoint_0.pt");
  os::UniqueFd holder = lock(alive);
  std::atomic<bool> committed = false;
  std::thread other([&] {
    // The waiting side has had a good look at it by then, or not: right in both cases.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ASSERT_EQ(::rename(alive.c_str(), (scratch_ / "checkpoint_0.pt").c_str()), 0);
    committed = true;
    holder.reset();
  });
  begin_and_abort(*sink(target()));
  EXPECT_TRUE(committed);
  other.join();
  EXPECT_TRUE(exists(scratch_ / "checkpoint_0.pt")) << "a finished file was removed";
}

TEST_F(Leftovers, OfTheLivingFailASaveAfterItsTimeout) {
  const std::string alive = leave("checkpoint_0.pt");
  const os::UniqueFd holder = lock(alive);
  const Error error = error_of([&] { begin_and_abort(*sink(target(), 0.05)); });
  EXPECT_EQ(error.code(), ErrorCode::busy_elsewhere);
  EXPECT_EQ(error.path(), scratch_ / "checkpoint_0.pt");
  EXPECT_TRUE(exists(alive));
}

TEST_F(Leftovers, ThatAreNoFilesAreLeftAlone) {
  const std::string fifo = scratch_ / new_temporary_name("checkpoint_0.pt");
  const std::string link = scratch_ / new_temporary_name("checkpoint_0.pt");
  const std::string folder = scratch_ / new_temporary_name("checkpoint_0.pt");
  write_text(scratch_ / "victim", "precious");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ASSERT_EQ(::symlink((scratch_ / "victim").c_str(), link.c_str()), 0);
  std::filesystem::create_directory(folder);
  begin_and_abort(*sink(target()));
  for (const std::string& path : {fifo, link, folder}) EXPECT_TRUE(exists(path));
}

TEST_F(Leftovers, WithoutLocksAreLeftAlone) {
  class NoLocks final : public ForwardingFiles {
    int flock(int, int) override {
      errno = ENOLCK;
      return -1;
    }
  } files;
  const std::string unknown = leave("checkpoint_0.pt");
  begin_and_abort(*make_file_sink(files, {}, target(), nullptr));
  EXPECT_TRUE(exists(unknown)) << "nobody can tell whether its save is dead";
}

/// As NFS: locks of files are those of fcntl there, and ask for what the file is open for.
class LocksAsOfNfs : public ForwardingFiles {
 public:
  int open(const std::string& path, int flags, mode_t mode) override {
    const bool others = path == of_another_user && (flags & O_ACCMODE) != O_RDONLY;
    errno = EACCES;
    return others ? -1 : ForwardingFiles::open(path, flags, mode);
  }
  int flock(int fd, int operation) override {
    const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
    const bool exclusive = (operation & LOCK_EX) != 0;
    errno = EBADF;
    return mode == (exclusive ? O_RDONLY : O_WRONLY) ? -1 : ForwardingFiles::flock(fd, operation);
  }
  std::string of_another_user;
};

TEST_F(Leftovers, OfAnotherUserOnNfsAreInNobodysWay) {
  LocksAsOfNfs files;
  files.of_another_user = leave("checkpoint_0.pt");
  save_all(*make_file_sink(files, {}, target(), nullptr), bytes_, 4096);
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"checkpoint_0.pt"});
}

TEST_F(Leftovers, OfAnotherUserOnNfsAreWaitedForWhileTheyAreWritten) {
  LocksAsOfNfs files;
  files.of_another_user = leave("checkpoint_0.pt");
  const os::UniqueFd holder = lock(files.of_another_user);
  CheckpointWriterConfig config;
  config.busy_timeout_secs = 0.01;
  const auto one = make_file_sink(files, config, target(), nullptr);
  EXPECT_EQ(error_of([&] { begin_and_abort(*one); }).code(), ErrorCode::busy_elsewhere);
  EXPECT_TRUE(exists(files.of_another_user));
}

TEST_F(Leftovers, ADirectoryThatSomebodyElseHasLockedIsNoOtherCheckpointer) {
  const os::UniqueFd of_a_backup(::open(scratch_.path().c_str(), O_RDONLY | O_CLOEXEC));
  for (const int kind : {LOCK_EX, LOCK_SH}) {
    ASSERT_EQ(::flock(of_a_backup.get(), kind), 0);
    const Error error = error_of([&] { begin_and_abort(*sink(target(), 0.01)); });
    EXPECT_EQ(error.code(), ErrorCode::io) << error.what();
    EXPECT_EQ(error.errno_value(), EWOULDBLOCK);
    EXPECT_EQ(error.path(), scratch_.path());
    EXPECT_NE(error.cause().find("holds a lock (flock) on it"), std::string::npos);
  }
  ASSERT_EQ(::flock(of_a_backup.get(), LOCK_UN), 0);
  save_all(*sink(target(), 0.01), bytes_, 4096);
}

TEST_F(Leftovers, ANameAndADirectoryThatAreHeldInTurnAreWaitedForEachForItsOwnTime) {
  const os::UniqueFd of_a_backup(::open(scratch_.path().c_str(), O_RDONLY | O_CLOEXEC));
  for (const bool name_first : {true, false}) {
    const SaveTarget of_another = target();
    const auto another = sink(of_another);
    ASSERT_TRUE(another->begin(Beginning::fresh));
    const auto waiting = sink(target(), 0.2);
    if (!name_first) {
      ASSERT_EQ(::flock(of_a_backup.get(), LOCK_EX), 0);
    }
    ASSERT_FALSE(waiting->begin(Beginning::fresh));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    if (name_first) {
      another->abort();
      ASSERT_EQ(::flock(of_a_backup.get(), LOCK_EX), 0);
    } else {
      ASSERT_EQ(::flock(of_a_backup.get(), LOCK_UN), 0);
    }
    EXPECT_FALSE(waiting->begin(Beginning::fresh)) << "it has not waited for this yet";
    const Error error = error_of([&] { begin_and_abort(*waiting); });
    EXPECT_EQ(error.code(), name_first ? ErrorCode::io : ErrorCode::busy_elsewhere) << error.what();
    ASSERT_EQ(::flock(of_a_backup.get(), LOCK_UN), 0);
    waiting->abort();
    another->abort();
  }
}

TEST_F(Leftovers, ThatWereReplacedInTheMeantimeAreNotRemoved) {
  // Between the look at the name and its lock, its save commits and another one starts.
  class RenamesBeforeLock final : public ForwardingFiles {
   public:
    explicit RenamesBeforeLock(std::string path) : path_(std::move(path)) {}
    int flock(int fd, int operation) override {
      if (!std::filesystem::equivalent("/proc/self/fd/" + std::to_string(fd), path_)) {
        return ForwardingFiles::flock(fd, operation);
      }
      EXPECT_EQ(::rename(path_.c_str(), (path_ + ".done").c_str()), 0);
      write_text(path_, "another");
      return ForwardingFiles::flock(fd, operation);
    }

   private:
    std::string path_;
  };
  const std::string path = leave("checkpoint_0.pt");
  RenamesBeforeLock files(path);
  EXPECT_EQ(remove_if_dead(files, path), Removal::gone);
  EXPECT_TRUE(exists(path));
  EXPECT_TRUE(exists(path + ".done"));
}

TEST_F(Leftovers, OneSaverWaitsUntilTheOtherOfTheSameNameHasCommitted) {
  const SaveTarget first_target = target();
  const SaveTarget second_target = target();
  const auto first = sink(first_target);
  const auto second = sink(second_target);
  ASSERT_TRUE(first->begin(Beginning::fresh));
  EXPECT_FALSE(second->begin(Beginning::fresh));
  const auto neighbour = sink(target(1));
  EXPECT_TRUE(neighbour->begin(Beginning::fresh)) << "another name must not wait";
  write_blocks(*first, bytes_, 4096, 0, 3);
  EXPECT_FALSE(second->begin(Beginning::fresh));
  first->commit(kIgnorePhases);
  EXPECT_TRUE(second->begin(Beginning::fresh));
  EXPECT_EQ(contents(scratch_ / "checkpoint_0.pt"), bytes_);
}

TEST_F(Leftovers, ASaverThatWaitsInVainIsToldSo) {
  const SaveTarget first_target = target();
  const auto first = sink(first_target);
  ASSERT_TRUE(first->begin(Beginning::fresh));
  const auto second = sink(target(), 0);
  EXPECT_EQ(error_of([&] { second->begin(Beginning::fresh); }).code(), ErrorCode::busy_elsewhere);
  second->abort();
  EXPECT_TRUE(exists(scratch_ / first_target.temporary_name));
}

TEST_F(Leftovers, ASaverThatGivesWayDoesNotWait) {
  const SaveTarget first_target = target();
  const auto first = sink(first_target);
  ASSERT_TRUE(first->begin(Beginning::fresh));
  const auto second = sink(target(), 3600);
  second->give_way();
  EXPECT_EQ(error_of([&] { begin_and_abort(*second); }).code(), ErrorCode::busy_elsewhere);
}

TEST_F(Leftovers, ASaverThatGivesWayIsNotHeldUpByWhoeverOnlyLooks) {
  const std::string dead = leave("checkpoint_0.pt");
  const auto one = sink(target());
  one->give_way();
  {
    const os::UniqueFd looker = lock(dead);
    EXPECT_FALSE(one->begin(Beginning::fresh));
  }
  EXPECT_TRUE(one->begin(Beginning::fresh));
  EXPECT_FALSE(exists(dead));
}

TEST_F(Leftovers, ANameThatIsClaimedIsInUseAndTakesNoSpaceYet) {
  const SaveTarget first_target = target();
  const auto first = sink(first_target);
  ASSERT_TRUE(first->claim(Beginning::fresh));
  ASSERT_TRUE(first->claim(Beginning::fresh)) << "once more is no error";
  EXPECT_EQ(std::filesystem::file_size(scratch_ / first_target.temporary_name), 0U);
  EXPECT_EQ(first->room(), 0U);
  const auto second = sink(target());
  EXPECT_FALSE(second->begin(Beginning::fresh));
  ASSERT_TRUE(first->begin(Beginning::fresh));
  write_blocks(*first, bytes_, 4096, 0, 3);
  first->commit(kIgnorePhases);
  EXPECT_TRUE(second->begin(Beginning::fresh));
  EXPECT_EQ(contents(scratch_ / "checkpoint_0.pt"), bytes_);
}

TEST_F(Leftovers, AClaimCanBeGivenUp) {
  const SaveTarget where = make_target(system_files(), scratch_ / "a/b", {0, 1}, bytes_.size());
  const auto one = sink(where);
  ASSERT_TRUE(one->claim(Beginning::fresh));
  one->abort();
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{});
}

TEST_F(Leftovers, TheSaveBeforeOfTheSameProcessIsNotInTheWay) {
  const SaveTarget first_target = target();
  SaveTarget second_target = target();
  second_target.earlier_temporary = first_target.temporary_name;
  const auto first = sink(first_target);
  const auto second = sink(second_target);
  ASSERT_TRUE(first->begin(Beginning::fresh));
  EXPECT_TRUE(second->claim(Beginning::fresh));
  EXPECT_FALSE(sink(target())->begin(Beginning::fresh));
  first->abort();
  EXPECT_FALSE(sink(target())->begin(Beginning::fresh)) << "somebody still saves there";
}

TEST_F(Leftovers, SaversThatBeginAtTheSameMomentTakeTurns) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 40;
  std::atomic<int> writing = 0;
  std::atomic<int> failures = 0;
  const auto work = [&](int thread) {
    for (int round = 0; round < kRounds; ++round) {
      try {
        const auto one = sink(target(), 3600);  // others may come first again and again
        while (!one->begin(Beginning::fresh)) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        if (++writing != 1) ++failures;
        write_blocks(*one, bytes_, 4096, 0, 3);
        --writing;
        if ((thread + round) % 3 == 0) {
          one->abort();
        } else {
          one->commit(kIgnorePhases);
        }
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
        ++failures;
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(tree(scratch_.path()), std::vector<std::string>{"checkpoint_0.pt"});
  EXPECT_EQ(contents(scratch_ / "checkpoint_0.pt"), bytes_);
}

TEST_F(Leftovers, SaversOfOneDirectoryThatComesAndGoesAllSucceed) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 40;
  const auto work = [&](int rank) {
    for (int round = 0; round < kRounds; ++round) {
      try {
        const SaveTarget where =
            make_target(system_files(), scratch_ / "run/step", {rank, 8}, bytes_.size());
        const auto one = sink(where);
        while (!one->begin(Beginning::fresh)) {
        }
        one->abort();
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int rank = 0; rank < kThreads; ++rank) threads.emplace_back(work, rank);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ckptring::store::test
