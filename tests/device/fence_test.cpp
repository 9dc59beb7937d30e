// A fence holds the device, and the host only where the ring is smaller than the state.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <latch>
#include <thread>

namespace ckptring::test {
namespace {

class Fence : public testing::TestWithParam<Schedule> {
 protected:
  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, Fence, testing::ValuesIn(all_schedules(4)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(Fence, DoesNotHoldTheHostWhereTheRingHoldsTheState) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  for (int round = 0; round < 3; ++round) {
    // As long as the devices are held nothing can be copied: whoever waits for it waits for ever.
    auto held = cuda_.hold(cuda_.null_stream(0));
    auto held_too = cuda_.hold(cuda_.null_stream(1));
    training_.step_on_devices();
    const StateDict values = training_.values();
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    fence_both(save);
    training_.step_on_devices();
    EXPECT_FALSE(save.staged.ready());
    held.release();
    held_too.release();
    save.written.get();
    expect_equal(values, loaded(directory_ / "it"), "state");
  }
}

TEST_P(Fence, HoldsTheHostWhereTheRingIsSmallerUntilTheDiskHasMadeRoom) {
  const auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
  double stalled_seconds = 0;
  // The disk goes on as soon as staging has been asked for, and may keep ahead of it once.
  for (int attempt = 0; attempt < 20 && stalled_seconds == 0; ++attempt) {
    checkpointer->ready();
    ASSERT_EQ(::kill(checkpointer->process_id(), SIGSTOP), 0);
    std::latch about_to_fence(1);
    std::atomic<bool> goes_on = false;
    std::jthread disk([&] {
      about_to_fence.wait();
      goes_on = true;
      EXPECT_EQ(::kill(checkpointer->process_id(), SIGCONT), 0);
    });
    training_.step_on_devices();
    const StateDict values = training_.values();
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    about_to_fence.count_down();
    fence_both(save);
    EXPECT_TRUE(goes_on);
    training_.step_on_devices();
    stalled_seconds = save.written.get().stalled_seconds;
    expect_equal(values, loaded(directory_ / "it"), "state");
  }
  EXPECT_GT(stalled_seconds, 0);
}

TEST_P(Fence, MayComeAfterTheSaveHasEnded) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
  save.written.get();
  fence_both(save);
  checkpointer->close();
  fence_both(save);
}

class FenceTest : public testing::Test {
 protected:
  CheckedFakeCuda cuda_{2, Schedule::random(3)};
  TemporaryDirectory directory_;
};

TEST_F(FenceTest, OfAStateInHostMemoryDoesNothing) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const SaveHandle save = checkpointer->save(directory_ / "it", sample_state());
  fence_both(save);
  save.written.get();
  EXPECT_THAT(cuda_.counters().calls, testing::Each(0u));
}

TEST_F(FenceTest, InAForkedChildIsRefusedBeforeItComesToCuda) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const SaveHandle save = checkpointer->save(directory_ / "it", to_device(sample_state(), 1));
  save.written.get();
  const ::pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ErrorCode code = ErrorCode::ok;
    try {
      save.fence(c10::Stream(c10::Stream::DEFAULT, cuda_device(0)));
    } catch (const Error& error) {
      code = error.code();
    }
    ::_exit(code == ErrorCode::wrong_process && !cuda_.contexts().contains(0) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(FenceTest, OfAStreamThatIsNotCudasIsRefused) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const SaveHandle save = checkpointer->save(directory_ / "it", to_device(sample_state()));
  try {
    save.fence(c10::Stream(c10::Stream::DEFAULT, c10::kCPU));
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), testing::HasSubstr("device cpu "));
  }
  save.written.get();
}

}  // namespace
}  // namespace ckptring::test
