// What a save asks of the CUDA runtime: nothing that holds a whole device, nothing twice.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>

namespace ckptring::test {
namespace {

class DeviceCost : public testing::TestWithParam<Schedule> {
 protected:
  void save_and_train(Checkpointer& checkpointer) {
    const SaveHandle save = checkpointer.save(directory_ / "it", training_.state());
    fence_both(save);
    training_.step_on_devices();
    save.written.get();
  }

  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, DeviceCost, testing::ValuesIn(all_schedules(2)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(DeviceCost, ASteadySaveWaitsForNoDeviceAndRegistersNothing) {
  for (const std::uint64_t blocks : {kSmallRing, kLargeRing}) {
    const auto checkpointer = make_async_checkpointer(ring_of(blocks));
    save_and_train(*checkpointer);
    cuda_.reset_counters();
    for (int i = 0; i < 5; ++i) save_and_train(*checkpointer);
    const CudaCounters counters = cuda_.counters();
    EXPECT_EQ(counters.device_synchronisations, 0u);
    EXPECT_EQ(counters.of(Call::stream_synchronize), 0u);
    EXPECT_EQ(counters.busy_waits, 0u);
    EXPECT_EQ(counters.pageable_copies, 0u);
    EXPECT_EQ(counters.straddling_copies, 0u);
    EXPECT_EQ(counters.of(Call::host_register), 0u);
    EXPECT_EQ(counters.of(Call::host_alloc), 0u);
    EXPECT_EQ(counters.of(Call::stream_create_with_flags), 0u);
    EXPECT_GT(counters.copies, 0u);
  }
}

TEST_P(DeviceCost, ARingIsRegisteredOnceAndGivenBackBeforeItGoes) {
  {
    const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
    EXPECT_EQ(cuda_.counters().registrations, 0u);
    checkpointer->prepare(training_.state());
    for (int i = 0; i < 3; ++i) save_and_train(*checkpointer);
    EXPECT_EQ(cuda_.counters().registrations, 1u);
    EXPECT_EQ(cuda_.counters().registered_bytes, kLargeRing << 16);
    EXPECT_EQ(cuda_.pinned_bytes(), kLargeRing << 16);
    // Memory that is unmapped while it is registered is a violation.
  }
  EXPECT_EQ(cuda_.counters().of(Call::host_unregister), 1u);
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
}

TEST_P(DeviceCost, ARingThatIsReplacedIsGivenBackToo) {
  CheckpointerConfig config = ring_of(0);
  const auto checkpointer = make_async_checkpointer(config);
  checkpointer->save(directory_ / "small", to_device(dict({{"w", noise({1'000}, c10::kFloat)}})))
      .written.get();
  const std::size_t first = cuda_.pinned_bytes();
  EXPECT_GT(first, 0u);
  const StateDict large = dict({{"w", noise({2'000'000}, c10::kInt)}});
  checkpointer->save(directory_ / "large", to_device(large)).written.get();
  expect_equal(large, loaded(directory_ / "large"), "state");
  EXPECT_GT(cuda_.pinned_bytes(), first);
  EXPECT_EQ(cuda_.counters().registered_bytes, first + cuda_.pinned_bytes());
  checkpointer->close();
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
}

TEST_P(DeviceCost, ThousandsOfSmallTensorsAreAFewCalls) {
  auto tensors = make_state_list();
  for (std::int64_t i = 0; i < 2'000; ++i) {
    tensors.push_back(noise({1 + i % 7}, c10::kInt, static_cast<std::uint64_t>(i)));
  }
  const StateDict state = dict({{"small", tensors}});
  const StateDict there = to_device(state, 1);
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  cuda_.reset_counters();
  checkpointer->save(directory_ / "it", there).written.get();
  const CudaCounters counters = cuda_.counters();
  EXPECT_GE(counters.copies, 2'000u);
  EXPECT_LE(counters.of(Call::memcpy_async) + counters.of(Call::memcpy_batch_async), 10u);
  expect_equal(state, loaded(directory_ / "it"), "state");
}

TEST_P(DeviceCost, TheCallerMakesAFewCallsForEachDeviceHoweverManyTensorsThereAre) {
  for (const int devices : {1, 2}) {
    const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
    std::map<std::int64_t, std::uint64_t> calls_of_save;  // by the number of tensors
    for (const std::int64_t count : {4, 444}) {
      auto tensors = make_state_list();
      for (std::int64_t i = 0; i < count; ++i) {
        tensors.push_back(to_device(noise({200}, c10::kInt, static_cast<std::uint64_t>(i)),
                                    static_cast<int>(i % devices)));
      }
      const StateDict state = dict({{"tensors", tensors}});
      checkpointer->save(directory_ / "first", state).written.get();
      const std::uint64_t before = cuda_.calls_of_this_thread();
      const SaveHandle save = checkpointer->save(directory_ / "it", state);
      const std::uint64_t saved = cuda_.calls_of_this_thread();
      for (int device = 0; device < devices; ++device) save.fence(current_stream(device));
      const std::uint64_t fenced = cuda_.calls_of_this_thread();
      const auto each = static_cast<std::uint64_t>(devices);
      calls_of_save[count] = saved - before;
      EXPECT_LE(saved - before, 28 * each)
          << "marked, captured in one batch, and waited for; the capture mode changed for each";
      EXPECT_GE(fenced - saved, 7 * each) << "twice which is current, the capture mode changed and "
                                             "changed back, whether a graph is "
                                             "captured, recorded, and waited for";
      EXPECT_LE(fenced - saved, 9 * each) << "the event may have to be made";
      save.written.get();
    }
    EXPECT_NEAR(static_cast<double>(calls_of_save[444]), static_cast<double>(calls_of_save[4]), 2.0)
        << "an event for each device may have to be made";
  }
}

TEST_P(DeviceCost, AStateInHostMemoryAsksForNothing) {
  const auto async = make_async_checkpointer(ring_of(kLargeRing));
  const auto sync = make_sync_checkpointer();
  cuda_.reset_counters();
  async->save(directory_ / "async", sample_state()).written.get();
  sync->save(directory_ / "sync", sample_state()).written.get();
  EXPECT_THAT(cuda_.counters().calls, testing::Each(0u));
}

}  // namespace
}  // namespace ckptring::test
