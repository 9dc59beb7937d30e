// The staging thread is refused memory at any moment of a save.
#include "save/async_save.h"

#include "support/failing_allocations.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <exception>

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

TEST(NoMemory, AnywhereInStagingFailsThatSaveOnly) {
  const test::TemporaryDirectory directory;
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = 64 << 10;
  config.process_config.ring_bytes = 8 * (64 << 10);
  config.staging_config.copy_threads = 1;
  AsyncSave async(config, {});
  const auto storages = noise({200'000, 7}, 1);
  std::size_t failed = 0;
  for (std::size_t nth = 0;; ++nth) {
    SCOPED_TRACE("allocation " + std::to_string(nth));
    const test::FailingAllocation failing("ckptring-stage", nth);
    const SaveHandle save = async.submit(job_for(directory / "run", storages));
    save.staged.wait();
    save.written.wait();
    if (!failing.failed()) break;
    ++failed;
    try {
      save.written.get();
    } catch (const std::exception&) {
      // Whatever it was told: the ring is as good as before.
    }
    const SaveHandle next = async.submit(job_for(directory / "run", storages));
    ASSERT_NO_THROW(next.written.get());
    ASSERT_NO_THROW(next.staged.get());
  }
  EXPECT_GT(failed, 5u);
  EXPECT_NO_THROW(async.close());
}

}  // namespace
}  // namespace ckptring::save
