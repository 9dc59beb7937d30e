// The same for a state on a device: a shortage in the caller, in the staging thread, or in those of
// the device.
#include "save/sync_save.h"
#include "save/without_memory.h"
#include "support/checked_fake_cuda.h"

#include <string>
#include <utility>
#include <vector>

namespace ckptring::save {
namespace {

using test::job_for;
using test::noise;

class WithoutMemoryOfADevice : public WithoutMemory {
 protected:
  WithoutMemoryOfADevice() {
    for (const auto& storage : *on_device_) {
      places_.push_back(
          {static_cast<std::byte*>(cuda_.device_alloc(0, storage.size())), storage.size(), 0});
    }
  }

  SaveJob job(stage::DeviceAccess& devices) const {
    SaveJob job = job_for(directory_ / "run", on_device_);
    job.sources = places_;
    job.name_of = [](std::uint32_t source) {
      return "a name that does not fit into a string itself " + std::to_string(source);
    };
    job.devices.push_back({0, stream_, devices.copies()->mark(0, stream_)});
    return job;
  }

  test::CheckedFakeCuda cuda_{1, test::Schedule::random(1)};
  cudaStream_t stream_ = cuda_.training_stream(0);
  const std::shared_ptr<test::Storages> on_device_ = noise({100, 4'000, 7, 300'000}, 1);
  std::vector<stage::Source> places_;
};

TEST_P(WithoutMemoryOfADevice, AnAsyncSaveEndsAndTheNextOneWorks) {
  for (const char* threads : {kCaller, "ckptring-"}) {
    AsyncSave async(config(WriteMode::automatic), {});
    bool met = true;
    std::size_t nth = 0;
    for (; met; nth += step()) {
      SCOPED_TRACE(std::string(threads) + std::to_string(nth));
      SaveJob given = job(async.devices());
      SaveHandle save;
      {
        const test::FailingAllocation shortage(threads, nth, GetParam());
        try {
          save = async.submit(std::move(given));
          ASSERT_TRUE(save.staged.wait_for(kStuck));
          ASSERT_TRUE(save.written.wait_for(kStuck));
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        met = shortage.failed();
      }
      ASSERT_NO_FATAL_FAILURE(expect_usable(async, save, job(async.devices())));
    }
    EXPECT_GT(nth, 10U);
  }
}

TEST_P(WithoutMemoryOfADevice, ASyncSaveEndsAndTheNextOneWorks) {
  for (const char* threads : {kCaller, "ckptring-"}) {
    SyncSave sync(config(WriteMode::automatic).writer_config, {}, {});
    bool met = true;
    for (std::size_t nth = 0; met; ++nth) {
      SCOPED_TRACE(std::string(threads) + std::to_string(nth));
      SaveJob given = job(sync.devices());
      {
        const test::FailingAllocation shortage(threads, nth, GetParam());
        try {
          (void)sync.run(std::move(given));
        } catch (const std::exception&) {
          ASSERT_TRUE(is_told(std::current_exception()));
        }
        met = shortage.failed();
      }
      ASSERT_NO_THROW((void)sync.run(job(sync.devices())));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shortages, WithoutMemoryOfADevice, ::testing::Values(1, 3),
                         [](const auto& shortage) {
                           return "of_" + std::to_string(shortage.param);
                         });

}  // namespace
}  // namespace ckptring::save
