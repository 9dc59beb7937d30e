// Memory runs out in the threads of the library: at each allocation that a save makes there, once
// or several times in a row. The trainer lives, every future becomes ready, and the next save
// works.
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/failing_allocations.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

class WithoutMemory : public ::testing::TestWithParam<std::size_t> {
 protected:
  static constexpr std::chrono::seconds kStuck{60};

  static CheckpointerConfig config(WriteMode mode) {
    CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 4 * (64 << 10);
    config.process_config.max_restarts = 1000;
    config.writer_config.mode = mode;
    config.staging_config.copy_threads = 3;
    return config;
  }
  /// @return whether all is well: what has failed, has failed for want of memory
  static bool is_told(const std::exception_ptr& failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const std::bad_alloc&) {
    } catch (const Error&) {  // in words, or what came of it: a save that was given up
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
      return false;
    }
    return true;
  }

  const test::TemporaryDirectory directory_;
  const test::LogLines quiet_{LogLevel::off};
  const std::shared_ptr<test::Storages> storages_ = noise({500'000, 7}, 1);
};

TEST_P(WithoutMemory, AnAsyncSaveEndsAndTheNextOneWorks) {
  AsyncSave async(config(WriteMode::automatic), {});
  std::size_t nth = 0;
  // Several in a row hold up whoever watches the helper: he pauses after each.
  const std::size_t step = GetParam() == 1 ? 1 : 7;
  for (bool met = true; met; nth += step) {
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
    // A helper that nobody could watch may only now be given up, and with it what was just begun.
    std::exception_ptr failure;
    for (int attempt = 0; attempt == 0 || (failure && attempt < 3); ++attempt) {
      failure = async.submit(job_for(directory_ / "run", storages_)).written.error();
    }
    ASSERT_NO_THROW(if (failure) std::rethrow_exception(failure));
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

INSTANTIATE_TEST_SUITE_P(Shortages, WithoutMemory, ::testing::Values(1, 3),
                         [](const auto& shortage) {
                           return "of_" + std::to_string(shortage.param);
                         });

}  // namespace
}  // namespace ckptring::save
