// Memory runs out: in the threads of the library, or in the one that calls it, at each allocation
// that a save makes there, once or several times in a row. The trainer lives, every future becomes
// ready, and the next save works.
#include "save/without_memory.h"

#include "os/unique_fd.h"
#include "save/sync_save.h"
#include "store/temporary_name.h"

#include <fcntl.h>
#include <sys/file.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace ckptring::save {
namespace {

using test::job_for;

TEST_P(WithoutMemory, AnAsyncSaveEndsAndTheNextOneWorks) {
  AsyncSave async(config(WriteMode::automatic), {});
  std::size_t nth = 0;
  for (bool met = true; met; nth += step()) {
    SCOPED_TRACE(nth);
    async.ready();
    {
      const test::FailingAllocation shortage("ckptring-", nth, GetParam());
      const SaveHandle save = async.submit(job_for(directory_ / "run", storages_));
      ASSERT_TRUE(save.staged.wait_for(kStuck));
      ASSERT_TRUE(save.written.wait_for(kStuck));
      met = shortage.failed();
      ASSERT_TRUE(is_told(save.written.error()));
    }
    ASSERT_NO_FATAL_FAILURE(expect_works(async, job_for(directory_ / "run", storages_)));
  }
  EXPECT_GT(nth, 10U);
}

TEST_P(WithoutMemory, ASyncSaveEndsAndTheNextOneWorks) {
  for (const WriteMode mode : {WriteMode::automatic, WriteMode::buffered}) {
    SyncSave sync(config(mode).writer_config, {}, {});
    bool met = true;
    for (std::size_t nth = 0; met; ++nth) {
      SCOPED_TRACE(nth);
      {
        const test::FailingAllocation shortage("ckptring-", nth, GetParam());
        try {
          (void)sync.run(job_for(directory_ / "run", storages_));
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        met = shortage.failed();
      }
      ASSERT_NO_THROW((void)sync.run(job_for(directory_ / "run", storages_)));
    }
  }
}

TEST_P(WithoutMemory, TheCallerOfAnAsyncSaveIsToldAndTheNextOneWorks) {
  AsyncSave async(config(WriteMode::automatic), {});
  bool met = true;
  std::size_t nth = 0;
  for (; met; ++nth) {
    SCOPED_TRACE(nth);
    SaveJob job = job_for(directory_ / "run", storages_);
    SaveHandle save;
    {
      const test::FailingAllocation shortage(kCaller, nth, GetParam());
      try {
        save = async.submit(std::move(job));
      } catch (const std::exception&) {
        ASSERT_TRUE(is_told(std::current_exception()));
      }
      met = shortage.failed();
    }
    ASSERT_NO_FATAL_FAILURE(expect_usable(async, save, job_for(directory_ / "run", storages_)));
  }
  EXPECT_GT(nth, 10U);
}

TEST_P(WithoutMemory, TheCallerOfASyncSaveIsToldAndTheNextOneWorks) {
  for (const WriteMode mode :
       {WriteMode::automatic, WriteMode::direct_threads, WriteMode::buffered}) {
    SyncSave sync(config(mode).writer_config, {}, {});
    bool met = true;
    std::size_t nth = 0;
    for (; met; ++nth) {
      SCOPED_TRACE(nth);
      SaveJob job = job_for(directory_ / "run", storages_);
      {
        const test::FailingAllocation shortage(kCaller, nth, GetParam());
        try {
          (void)sync.run(std::move(job));
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        met = shortage.failed();
      }
      ASSERT_NO_THROW((void)sync.run(job_for(directory_ / "run", storages_)));
    }
    EXPECT_GT(nth, 10U);
  }
}

TEST_P(WithoutMemory, TheEndOfACheckpointerEndsItsSaves) {
  for (const bool closes : {true, false}) {
    bool met = true;
    for (std::size_t nth = 0; met; ++nth) {
      SCOPED_TRACE(nth);
      std::optional<AsyncSave> async(std::in_place, config(WriteMode::automatic), RankInfo{});
      const SaveHandle save = async->submit(job_for(directory_ / "run", storages_));
      save.staged.wait();
      {
        const test::FailingAllocation shortage(kCaller, nth, GetParam());
        try {
          if (closes) async->close();
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        if (!closes) async.reset();
        met = shortage.failed();
      }
      async.reset();
      ASSERT_TRUE(save.written.ready());
      ASSERT_TRUE(is_told(save.written.error()));
    }
  }
}

// The successor of a process that was killed tells of a failure, which is told with the story of
// that death.
TEST_P(WithoutMemory, AFailureThatASuccessorTellsOfIsHandedOn) {
  // Somebody else is saving there.
  ASSERT_TRUE(std::filesystem::create_directory(directory_ / "run"));
  const std::string held = directory_ / "run" + "/" + store::new_temporary_name("checkpoint_0.pt");
  const os::UniqueFd holder(::open(held.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::flock(holder.get(), LOCK_EX), 0);
  CheckpointerConfig impatient = config(WriteMode::automatic);
  impatient.writer_config.busy_timeout_secs = 0.2;
  AsyncSave async(impatient, {});
  bool met = true;
  std::size_t explained = 0;
  // A helper that has ended the save before it is killed leaves less to do, and to meet.
  constexpr std::size_t kAtLeast = 60;
  for (std::size_t nth = 0; met || nth < kAtLeast; nth += 2 + step()) {
    SCOPED_TRACE(nth);
    ASSERT_NO_FATAL_FAILURE(expect_works(async, job_for(directory_ / "next", storages_)));
    {
      const test::FailingAllocation shortage("ckptring-watch", nth, GetParam());
      const SaveHandle save = async.submit(job_for(directory_ / "run", storages_));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // it has looked at the save
      if (const int helper = async.process_id(); helper > 0) (void)::kill(helper, SIGKILL);
      ASSERT_TRUE(save.written.wait_for(kStuck));
      met = shortage.failed();
      ASSERT_TRUE(save.written.error());
      ASSERT_TRUE(is_told(save.written.error()));
      try {
        (void)save.written.get();
      } catch (const std::exception& error) {
        if (std::string(error.what()).find("before that") != std::string::npos) ++explained;
      }
    }
  }
  EXPECT_GT(explained, 0U);
}

INSTANTIATE_TEST_SUITE_P(Shortages, WithoutMemory, ::testing::Values(1, 3),
                         [](const auto& shortage) {
                           return "of_" + std::to_string(shortage.param);
                         });

}  // namespace
}  // namespace ckptring::save
