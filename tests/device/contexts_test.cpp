// Which devices have a context is the training's business: it takes much of their memory.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace ckptring::test {
namespace {

using testing::ElementsAre;
using testing::Pair;

/// With a state on the second of three devices, and whether its memory can be registered.
class Contexts : public testing::TestWithParam<bool> {
 protected:
  void may_refuse_the_next_registration() {
    if (!GetParam()) cuda_.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
  }
  void save_and_load(Checkpointer& checkpointer) {
    may_refuse_the_next_registration();
    for (int round = 0; round < 2; ++round) {
      const SaveHandle save = checkpointer.save(directory_ / "it", state_);
      save.fence(current_stream(1));
      save.written.get();
    }
    may_refuse_the_next_registration();
    (void)checkpointer.load(directory_ / "it", state_);
    may_refuse_the_next_registration();
    const StateDict loaded =
        checkpointer.load(directory_ / "it", {}, {.default_map_location = cuda_device(1)}).state;
    expect_equal(sample_state(), to_host(loaded), "state");
  }
  void work() {
    {
      const auto async = make_async_checkpointer(ring_of(kSmallRing));
      save_and_load(*async);
      async->close();
    }
    const auto sync = make_sync_checkpointer();
    save_and_load(*sync);
  }
  void expect_none_elsewhere() const {
    EXPECT_THAT(cuda_.contexts(), ElementsAre(Pair(1, "the training")));
  }

  CheckedFakeCuda cuda_{3, Schedule::random(5)};
  const StateDict state_ = to_device(sample_state(), 1);
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Registered, Contexts, testing::Bool());

TEST_P(Contexts, AreNotMadeBesideTheCurrentDevice) {
  c10::impl::getDeviceGuardImpl(c10::kCUDA)->setDevice(cuda_device(1));
  work();
  expect_none_elsewhere();
  EXPECT_EQ(cuda_.current_device(), 1);
}

TEST_P(Contexts, AreNotMadeOnACurrentDeviceThatNobodyUses) {
  ASSERT_EQ(current_device(), cuda_device(0));
  work();
  expect_none_elsewhere();
  EXPECT_EQ(current_device(), cuda_device(0));
}

TEST_P(Contexts, AreNotMadeByThreadsThatHaveNotUsedCuda) {
  std::thread([this] { work(); }).join();
  expect_none_elsewhere();
}

TEST_P(Contexts, AreNotMadeByAThreadThatOnlyLoads) {
  make_sync_checkpointer()->save(directory_ / "it", sample_state()).written.get();
  may_refuse_the_next_registration();
  std::thread([this] { (void)CheckpointReader().read(directory_ / "it", state_); }).join();
  expect_none_elsewhere();
}

TEST_P(Contexts, AreNotMadeByWhoeverEndsACheckpointer) {
  auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
  SaveHandle save = checkpointer->save(directory_ / "it", state_);
  save.written.get();
  std::thread([&] { checkpointer.reset(); }).join();
  std::thread([&] { save = {}; }).join();
  expect_none_elsewhere();
}

}  // namespace
}  // namespace ckptring::test
