// Memory runs out in the threads of the library: at each allocation that a save makes there, once
// or several times in a row. The trainer lives, every future becomes ready, and the next save
// works.
#include "os/own_thread.h"
#include "save/async_save.h"
#include "save/sync_save.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

// Relaxed: tests arm them while no save is under way.
std::atomic<std::int64_t> until_failure = kNever;
std::atomic<std::int64_t> in_a_row = 0;

bool has_memory() noexcept {
  if (until_failure.load(std::memory_order_relaxed) == kNever) return true;
  if (!ckptring::os::is_own_thread()) return true;
  const std::int64_t left = until_failure.fetch_sub(1, std::memory_order_relaxed) - 1;
  return left > 0 || left <= -in_a_row.load(std::memory_order_relaxed);
}

void* take(std::size_t size) {
  void* const memory = has_memory() ? std::malloc(size) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// The forms for arrays and without exceptions end in these.
void* operator new(std::size_t size) { return take(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

/// So many allocations fail in threads of the library, the first one being the nth (from 1) there.
class NoMemory {
 public:
  NoMemory(std::int64_t nth, std::int64_t count) {
    in_a_row = count;
    until_failure = nth;
  }
  ~NoMemory() { until_failure = kNever; }
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
  [[nodiscard]] static bool met() { return until_failure <= 0; }
};

class WithoutMemory : public ::testing::TestWithParam<int> {
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
  std::int64_t nth = 1;
  // Several in a row hold up whoever watches the helper: he pauses after each.
  const std::int64_t step = GetParam() == 1 ? 1 : 7;
  for (bool met = true; met; nth += step) {
    SCOPED_TRACE(nth);
    async.ready();
    {
      const NoMemory shortage(nth, GetParam());
      const SaveHandle save = async.submit(job_for(directory_ / "run", storages_));
      ASSERT_TRUE(save.staged.wait_for(kStuck));
      ASSERT_TRUE(save.written.wait_for(kStuck));
      met = NoMemory::met();
      ASSERT_TRUE(is_told(save.written.error()));
    }
    // A helper that nobody could watch may only now be given up, and with it what was just begun.
    std::exception_ptr failure;
    for (int attempt = 0; attempt == 0 || (failure && attempt < 3); ++attempt) {
      failure = async.submit(job_for(directory_ / "run", storages_)).written.error();
    }
    ASSERT_NO_THROW(if (failure) std::rethrow_exception(failure));
  }
  EXPECT_GT(nth, 10);
}

TEST_P(WithoutMemory, ASyncSaveEndsAndTheNextOneWorks) {
  for (const WriteMode mode : {WriteMode::automatic, WriteMode::buffered}) {
    SyncSave sync(config(mode).writer_config, {}, {});
    for (std::int64_t nth = 1, met = 1; met != 0; ++nth) {
      SCOPED_TRACE(nth);
      {
        const NoMemory shortage(nth, GetParam());
        try {
          (void)sync.run(job_for(directory_ / "run", storages_));
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        met = NoMemory::met() ? 1 : 0;
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
