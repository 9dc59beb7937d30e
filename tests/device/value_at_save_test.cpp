// What is saved is what the kernels enqueued before `save` produced, whatever is enqueued after it.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <c10/core/StreamGuard.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ckptring::test {
namespace {

class ValueAtSave : public testing::TestWithParam<Schedule> {
 protected:
  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, ValueAtSave, testing::ValuesIn(all_schedules(6)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(ValueAtSave, IsSavedThoughAFencedTrainingGoesOnAtOnce) {
  for (const std::uint64_t blocks : {kSmallRing, kLargeRing}) {
    const auto checkpointer = make_async_checkpointer(ring_of(blocks));
    for (int round = 0; round < 3; ++round) {
      training_.step_on_devices();
      const StateDict values = training_.values();
      const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
      fence_both(save);
      training_.step_on_devices();
      save.staged.get();
      training_.step_on_host();
      save.written.get();
      expect_equal(values, loaded(directory_ / "it"), "state");
    }
  }
}

TEST_P(ValueAtSave, IsSavedThoughTrainingGoesOnOnceItIsStaged) {
  for (const std::uint64_t blocks : {kSmallRing, kLargeRing}) {
    const auto checkpointer = make_async_checkpointer(ring_of(blocks));
    for (int round = 0; round < 3; ++round) {
      training_.step_on_devices();
      const StateDict values = training_.values();
      const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
      save.staged.get();
      training_.step();
      save.written.get();
      expect_equal(values, loaded(directory_ / "it"), "state");
    }
  }
}

TEST_P(ValueAtSave, IsSavedByTheSyncPathWhichNeedsNoFence) {
  const auto checkpointer = make_sync_checkpointer();
  for (int round = 0; round < 3; ++round) {
    training_.step();
    const StateDict values = training_.values();
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    fence_both(save);  // asks for nothing
    training_.step();
    save.written.get();
    expect_equal(values, loaded(directory_ / "it"), "state");
  }
}

TEST_P(ValueAtSave, IsThatOfTheStreamsThatAreCurrent) {
  synchronise(current_stream(0));
  synchronise(current_stream(1));
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const c10::StreamGuard first(pool_stream(0));
  const c10::StreamGuard second(pool_stream(1));
  for (int round = 0; round < 3; ++round) {
    training_.step_on_devices();
    const StateDict values = training_.values();
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    fence_both(save);
    training_.step_on_devices();
    save.written.get();
    expect_equal(values, loaded(directory_ / "it"), "state");
  }
  for (int device = 0; device < 2; ++device) synchronise(current_stream(device));
}

TEST_P(ValueAtSave, IsSavedThoughOtherStreamsAreBusy) {
  // What the training enqueues elsewhere, and the save is not to wait for.
  const auto busy = cuda_.hold(native_handle(pool_stream(0)));
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  training_.step();
  checkpointer->save(directory_ / "it", training_.state()).written.get();
  expect_equal(training_.values(), loaded(directory_ / "it"), "state");
}

TEST_P(ValueAtSave, IsThatOfEachOfSeveralSavesInFlight) {
  CheckpointerConfig config = ring_of(kLargeRing);
  config.max_saves_in_flight = 3;
  const auto checkpointer = make_async_checkpointer(config);
  std::vector<SaveHandle> saves;
  std::vector<StateDict> values;
  for (int i = 0; i < 6; ++i) {
    training_.step_on_devices();
    values.push_back(training_.values());
    saves.push_back(checkpointer->save(directory_ / std::to_string(i), training_.state()));
    fence_both(saves.back());
  }
  for (std::size_t i = 0; i < saves.size(); ++i) {
    saves[i].written.get();
    expect_equal(values[i], loaded(directory_ / std::to_string(i)), "state");
  }
}

}  // namespace
}  // namespace ckptring::test
