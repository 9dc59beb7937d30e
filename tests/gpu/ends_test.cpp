// A device breaks, or the trainer dies, while its copies are under way. In processes of their own:
// a broken device stays so.
#include "crash/orphans.h"
#include "gpu/gpu_test.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <utility>

namespace ckptring::test {
namespace {

class GpuEnds : public GpuTest {
 protected:
  // The other process is this program, begun anew.
  GpuEnds() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  void break_the_device();
  [[noreturn]] void die_with_copies_under_way(const std::string& directory);
};

/// Why a save from the device failed.
std::string failure_of(Checkpointer& checkpointer, const std::string& path,
                       const StateDict& state) {
  try {
    checkpointer.save(path, state).written.get();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device_failed) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "it was saved";
  return "";
}

void GpuEnds::break_the_device() {
  const StateDict on_host = dict({{"h", at::ones({3 << 20})}});
  const StateDict state = dict({{"w", full(7 << 20, 1, 0)}});
  const auto checkpointer = make_async_checkpointer(ring_of(48));
  const auto sync = make_sync_checkpointer();
  checkpointer->save(directory_ / "before", state).written.get();
  auto busy = devices_.keep_busy(0);
  devices_.break_device(0);
  busy.reset();
  for (int round = 0; round < 2; ++round) {
    for (Checkpointer* const each :
         {static_cast<Checkpointer*>(checkpointer.get()), static_cast<Checkpointer*>(sync.get())}) {
      EXPECT_THAT(failure_of(*each, directory_ / "broken", state),
                  testing::AllOf(testing::HasSubstr("key w"), testing::HasSubstr("cudaError")));
      each->save(directory_ / "host", on_host).written.get();
      expect_equal(on_host, load("host"), "state");
    }
  }
  checkpointer->close();
  EXPECT_FALSE(std::filesystem::exists(directory_ / "broken"));
  expect_equal(dict({{"w", at::ones({7 << 20})}}), load("before"), "state");
}

TEST_F(GpuEnds, ADeviceThatBreaksFailsItsSavesAndNothingElse) {
  EXPECT_EXIT(
      {
        break_the_device();
        std::filesystem::remove_all(directory_.path());
        ::_exit(HasFailure() ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

void GpuEnds::die_with_copies_under_way(const std::string& directory) {
  const auto checkpointer = make_async_checkpointer(ring_of(48));
  at::Tensor w = full(7 << 20, 1, 0);
  checkpointer->save(directory + "/first", dict({{"w", w}})).written.get();
  auto busy = devices_.keep_busy(0);
  const SaveHandle save = checkpointer->save(directory + "/second", dict({{"w", w}}));
  save.fence(devices_.current_stream(0));  // every copy is enqueued
  std::filesystem::remove_all(directory_.path());
  (void)::kill(::getpid(), SIGKILL);
  busy.reset();  // never: until the end the device is busy
  std::abort();
}

TEST_F(GpuEnds, ATrainerThatDiesWhileCopiesAreUnderWayLeavesNothingOfThatSave) {
  adopt_orphans();
  // Kept by the process that is begun from here.
  ASSERT_EQ(::setenv("GPU_TEST_DIRECTORY", directory_.path().c_str(), /*replace=*/0), 0);
  const char* const kept = std::getenv("GPU_TEST_DIRECTORY");
  ASSERT_NE(kept, nullptr);
  const std::string directory = kept;
  EXPECT_EXIT(die_with_copies_under_way(directory), testing::KilledBySignal(SIGKILL), "");
  while (::waitpid(-1, nullptr, 0) > 0) {  // the checkpoint process
  }
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    names.insert(entry.path().lexically_relative(directory));
  }
  EXPECT_THAT(names, testing::ElementsAre("first", "first/checkpoint_0.pt"));
  ::unsetenv("GPU_TEST_DIRECTORY");
}

}  // namespace
}  // namespace ckptring::test
