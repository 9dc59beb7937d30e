// Saves for which memory is refused in some threads, at each of their allocations in turn.
#pragma once

#include "save/async_save.h"
#include "support/failing_allocations.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>

namespace ckptring::save {

/// The parameter: how many are refused in a row.
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

  /// Whether a save that was begun comes to an end, and the next one succeeds.
  static void expect_usable(AsyncSave& async, const SaveHandle& begun, const SaveJob& next) {
    if (begun.written.valid()) {
      ASSERT_TRUE(begun.staged.wait_for(kStuck));
      ASSERT_TRUE(begun.written.wait_for(kStuck));
      ASSERT_TRUE(is_told(begun.written.error()));
      ASSERT_TRUE(is_told(begun.staged.error()));
    }
    for (const UnwrittenSave& save : async.wait_written(std::chrono::steady_clock::now())) {
      ASSERT_TRUE(save.error) << "still in flight";
    }
    expect_works(async, next);
  }
  /// A helper that nobody could watch may only now be given up, and with it what was just begun.
  static void expect_works(AsyncSave& async, const SaveJob& job) {
    std::exception_ptr failure;
    for (int attempt = 0; attempt == 0 || (failure && attempt < 3); ++attempt) {
      failure = async.submit(job).written.error();
    }
    ASSERT_NO_THROW(if (failure) std::rethrow_exception(failure));
  }
  /// Several in a row hold up whoever watches the helper: he pauses after each.
  [[nodiscard]] static std::size_t step() { return GetParam() == 1 ? 1 : 7; }

  // The thread of the test is the caller, by name.
  void SetUp() override { ASSERT_EQ(::pthread_setname_np(::pthread_self(), kCaller), 0); }
  static constexpr const char* kCaller = "caller";

  const test::TemporaryDirectory directory_;
  const test::LogLines quiet_{LogLevel::off};
  const std::shared_ptr<test::Storages> storages_ = test::noise({500'000, 7}, 1);
};

}  // namespace ckptring::save
