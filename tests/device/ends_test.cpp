// The checkpoint process, the trainer or the checkpointer ends while copies are under way.
#include "crash/trainer_process.h"
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <latch>
#include <set>
#include <string>
#include <thread>

namespace ckptring::test {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

class Ends : public testing::TestWithParam<Schedule> {
 protected:
  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, Ends, testing::ValuesIn(all_schedules(4)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(Ends, AKilledHelperCostsNoByteOfWhatIsBeingCopied) {
  const auto sync = make_sync_checkpointer();
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  for (int round = 0; round < 3; ++round) {
    training_.step();
    const SaveHandle undisturbed = sync->save(directory_ / "expected", training_.state());
    const std::string expected = contents(undisturbed.written.get().path);
    checkpointer->ready();
    auto held = cuda_.hold(cuda_.null_stream(0));
    const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
    fence_both(save);
    training_.step_on_devices();
    EXPECT_FALSE(save.staged.ready());
    ASSERT_EQ(::kill(checkpointer->process_id(), SIGKILL), 0);
    held.release();
    const SaveReport report = save.written.get();
    EXPECT_GE(report.restarts, 1u);
    EXPECT_TRUE(contents(report.path) == expected);
  }
}

TEST_P(Ends, ACheckpointerThatGoesWaitsForTheCopiesAndTheHelperCommitsThem) {
  adopt_orphans();
  const StateDict values = training_.values();
  auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  checkpointer->ready();
  const int helper = checkpointer->process_id();
  auto held = cuda_.hold(cuda_.null_stream(0));
  std::latch about_to_end(1);
  std::jthread device([&] {
    about_to_end.wait();
    held.release();
  });
  const SaveHandle save = checkpointer->save(directory_ / "it", training_.state());
  fence_both(save);
  training_.step_on_devices();
  about_to_end.count_down();
  checkpointer.reset();
  EXPECT_TRUE(save.staged.ready());
  EXPECT_EQ(words_of(save.staged.error()), "");
  EXPECT_TRUE(save.written.ready());
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
  ASSERT_TRUE(wait_for_end(helper));
  expect_equal(values, loaded(directory_ / "it"), "state");
}

std::set<std::string> names_in(const TemporaryDirectory& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path())) {
    names.insert(entry.path().lexically_relative(directory.path()));
  }
  return names;
}

TEST(TrainersEnd, WhileCopiesAreUnderWayUndoesThatSaveAndLeavesNothing) {
  adopt_orphans();
  const TemporaryDirectory directory;
  TrainerProcess trainer("copying", directory.path());
  ASSERT_TRUE(trainer.read_until("copying"));
  trainer.kill_and_read();
  ASSERT_TRUE(wait_for_end(trainer.helper()));
  EXPECT_THAT(names_in(directory), testing::ElementsAre("first", "first/checkpoint_0.pt"));
}

TEST(TrainersEnd, OnceTheCopiesHaveEndedLosesNothing) {
  adopt_orphans();
  const TemporaryDirectory directory;
  StateDict values = make_state_dict();
  {
    CheckedFakeCuda cuda(2);
    values = DeviceTraining().values();
  }
  TrainerProcess trainer("staged", directory.path());
  ASSERT_TRUE(trainer.read_until("staged"));
  trainer.kill_and_read();
  ASSERT_EQ(::kill(trainer.helper(), SIGCONT), 0);
  ASSERT_TRUE(wait_for_end(trainer.helper()));
  EXPECT_THAT(names_in(directory), testing::ElementsAre("first", "first/checkpoint_0.pt", "second",
                                                        "second/checkpoint_0.pt"));
  expect_equal(values, loaded(directory / "second"), "state");
}

}  // namespace
}  // namespace ckptring::test
