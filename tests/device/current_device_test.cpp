// Which device is current is the training's business: what it enqueues next goes there.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace ckptring::test {
namespace {

/// With a state on both devices and on the host, while either device is current.
class CurrentDevice : public testing::TestWithParam<int> {
 protected:
  CurrentDevice() { c10::impl::getDeviceGuardImpl(c10::kCUDA)->setDevice(cuda_device(GetParam())); }
  void expect_kept(const std::string& by) const {
    EXPECT_EQ(cuda_.current_device(), GetParam()) << by;
    EXPECT_EQ(current_device(), cuda_device(GetParam())) << by;
  }

  CheckedFakeCuda cuda_{2, Schedule::random(2)};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Devices, CurrentDevice, testing::Values(0, 1));

TEST_P(CurrentDevice, IsKeptByAnAsyncCheckpointer) {
  auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
  checkpointer->prepare(training_.state());
  expect_kept("prepare");
  for (int round = 0; round < 2; ++round) {
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    expect_kept("save");
    fence_both(save);
    expect_kept("fence");
    save.written.get();
  }
  (void)checkpointer->load(directory_ / "it", training_.state());
  expect_kept("load");
  checkpointer->close();
  expect_kept("close");
  checkpointer.reset();
  expect_kept("the end");
}

TEST_P(CurrentDevice, IsKeptByASyncCheckpointer) {
  auto checkpointer = make_sync_checkpointer();
  for (int round = 0; round < 2; ++round) {
    checkpointer->save(directory_ / "it", training_.state()).written.get();
    expect_kept("save");
  }
  for (int device = 0; device < 2; ++device) {
    (void)checkpointer->load(directory_ / "it", {}, {.default_map_location = cuda_device(device)});
    expect_kept("load to " + std::to_string(device));
  }
  checkpointer->close();
  checkpointer.reset();
  expect_kept("the end");
}

TEST_P(CurrentDevice, IsKeptWhateverFails) {
  make_sync_checkpointer()->save(directory_ / "it", training_.values()).written.get();
  for (const Call call : {Call::stream_create_with_flags, Call::event_create_with_flags,
                          Call::event_record, Call::stream_wait_event, Call::memcpy_batch_async,
                          Call::event_synchronize, Call::host_register, Call::host_alloc}) {
    for (const bool async : {false, true}) {
      const auto checkpointer =
          async ? std::unique_ptr<Checkpointer>(make_async_checkpointer(ring_of(kLargeRing)))
                : std::unique_ptr<Checkpointer>(make_sync_checkpointer());
      cuda_.fail(call, 1, cudaErrorUnknown);
      try {
        const SaveHandle save = checkpointer->save(directory_ / "other", training_.state());
        fence_both(save);
        save.written.get();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::device_failed);
      }
      expect_kept(std::string("a save without ") + name(call));
    }
    cuda_.fail(call, 1, cudaErrorUnknown);
    try {
      (void)CheckpointReader().read(directory_ / "it", training_.state());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
    }
    expect_kept(std::string("a load without ") + name(call));
  }
}

}  // namespace
}  // namespace ckptring::test
