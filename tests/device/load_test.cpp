// Loading into tensors on devices: straight from pinned windows, after what was enqueued before.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/failing_calls.h"
#include "support/log_lines.h"
#include "support/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <exception>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

namespace ckptring::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;

/// Saves the values that a training has now. Returns them, in host memory.
StateDict save_values(const DeviceTraining& training, const std::string& path) {
  StateDict values = training.values();
  make_sync_checkpointer()->save(path, values).written.get();
  return values;
}

class LoadToDevices : public testing::TestWithParam<Schedule> {
 protected:
  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceTraining training_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, LoadToDevices, testing::ValuesIn(all_schedules(4)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(LoadToDevices, TensorsInPlaceAreFilledAfterTheKernelsThatWereEnqueuedOnThem) {
  const StateDict saved = save_values(training_, directory_ / "it");
  for (const bool verify_first : {false, true}) {
    training_.step();  // has not run on the devices yet
    const LoadResult result = CheckpointReader().read(directory_ / "it", training_.state(),
                                                      {.verify_first = verify_first});
    EXPECT_TRUE(result.missing_keys.empty());
    expect_equal(saved, to_host(training_.state()), "state");
  }
  EXPECT_TRUE(tensor_at(training_.state(), "embedding").is_cuda());
  EXPECT_TRUE(
      tensor_at(training_.state(), "embedding").is_alias_of(tensor_at(training_.state(), "head")));
}

TEST_P(LoadToDevices, WhatIsEnqueuedAfterwardsSeesWhatWasLoaded) {
  (void)save_values(training_, directory_ / "it");
  (void)CheckpointReader().read(directory_ / "it", training_.state());
  training_.step();
  expect_equal(training_.values(), to_host(training_.state()), "state");
}

TEST_P(LoadToDevices, NewTensorsAreMadeOnTheDeviceAndShareStoragesAsBefore) {
  const StateDict saved = save_values(training_, directory_ / "it");
  const StateDict made = CheckpointReader()
                             .read(directory_ / "it", {}, {.default_map_location = cuda_device(1)})
                             .state;
  EXPECT_EQ(tensor_at(made, "embedding").device(), cuda_device(1));
  EXPECT_TRUE(tensor_at(made, "embedding").is_alias_of(tensor_at(made, "head")));
  EXPECT_TRUE(tensor_at(made, "embedding").is_alias_of(tensor_at(made, "column")));
  expect_equal(saved, to_host(made), "state");
}

TEST_P(LoadToDevices, TensorsOfAnotherLayoutAreFilledToo) {
  const at::Tensor values = noise({50, 70}, c10::kInt);
  make_sync_checkpointer()->save(directory_ / "it", dict({{"w", values}})).written.get();
  const at::Tensor turned = to_device(at::zeros({70, 50}, c10::kInt), 1).t();
  (void)CheckpointReader().read(directory_ / "it", dict({{"w", turned}}));
  EXPECT_TRUE(to_host(turned).equal(values));
}

TEST_P(LoadToDevices, TheWindowsAreRegisteredOnceAndNothingElseWaitsForADevice) {
  (void)save_values(training_, directory_ / "it");
  const StateDict whole_tensors = dict({{"embedding", tensor_at(training_.state(), "embedding")},
                                        {"layers", training_.state().at("layers")}});
  cuda_.reset_counters();
  (void)CheckpointReader().read(directory_ / "it", whole_tensors);
  const CudaCounters counters = cuda_.counters();
  // CUDA's own, when it gets to know the windows and when it forgets them.
  EXPECT_EQ(counters.device_synchronisations, 2u);
  EXPECT_EQ(counters.busy_waits, 0u);
  EXPECT_EQ(counters.pageable_copies, 0u);
  EXPECT_EQ(counters.straddling_copies, 0u);
  EXPECT_EQ(counters.registrations, 1u);
  EXPECT_EQ(counters.of(Call::host_unregister), 1u);
  EXPECT_GT(counters.copies, 0u);
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
}

TEST_P(LoadToDevices, WhatIsLoggedNamesTheRank) {
  (void)save_values(training_, directory_ / "it");
  cuda_.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
  const LogLines log;
  (void)CheckpointReader(RankInfo{.global_rank = 3, .global_world_size = 8})
      .read(directory_ / "it/checkpoint_0.pt", training_.state(), {.allow_other_world_size = true});
  const auto lines = log.with("register host memory with CUDA");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines.front().text, HasSubstr("rank 3"));
}

TEST(FailingLoadToDevices, AnyCallMayFailAndTheNextLoadIsWhole) {
  unsigned failed = 0;
  FailedCalls met;
  for (const Road road : kRoads) {
    for (std::size_t call = 0; call < kCalls; ++call) {
      const auto which = static_cast<Call>(call);
      for (unsigned nth = 1;; nth += 1 + nth / 4) {
        CheckedFakeCuda cuda(2, Schedule::random(nth));
        DeviceTraining training;
        const TemporaryDirectory directory;
        const StateDict saved = save_values(training, directory / "it");
        cuda.reset_counters();
        if (road == Road::window) cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
        fail_on(road, cuda, which, nth);
        try {
          (void)CheckpointReader().read(directory / "it", training.state());
        } catch (const Error& error) {
          ++failed;
          EXPECT_EQ(error.code(), ErrorCode::device_failed);
          EXPECT_THAT(error.what(), AllOf(HasSubstr("load key "), HasSubstr("device"),
                                          HasSubstr(directory / "it")));
          EXPECT_THAT(error.what(), AnyOf(HasSubstr("CUDA error: unknown error"),  // libtorch's
                                          has_words_of_unknown(which)));
        } catch (const std::exception& error) {
          ADD_FAILURE() << "thrown as it came: " << error.what();
        }
        if (cuda.counters().of(which) < nth) break;  // or the next load would meet it
        met.add(which);
        if (fails_yet(road, cuda)) {
          EXPECT_THROW((void)CheckpointReader().read(directory / "it", training.state()), Error);
        }
        (void)CheckpointReader().read(directory / "it", training.state());
        expect_equal(saved, to_host(training.state()), "state");
      }
    }
  }
  EXPECT_GE(failed, 5u);
  met.expect_all_but({Call::memcpy_batch_async,  // a window is one copy
                      Call::malloc, Call::free});
}

TEST(FailingLoadToDevices, AFailedCopyIsToldWithDeviceStreamKeyAndCudasWords) {
  CheckedFakeCuda cuda(2, Schedule::random(1));
  const DeviceTraining training;
  const TemporaryDirectory directory;
  (void)save_values(training, directory / "it");
  cuda.fail(Call::event_synchronize, 1, cudaErrorInvalidValue);
  try {
    (void)CheckpointReader().read(directory / "it", training.state());
    FAIL() << "nothing failed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ContainsRegex("load key [a-z]"));
    EXPECT_THAT(error.what(), ContainsRegex("copy to device [01] \\(stream 0x[0-9a-f]+\\)"));
    EXPECT_THAT(error.what(), HasSubstr("cudaErrorInvalidValue: invalid argument"));
  }
}

TEST(FailingLoadToDevices, ADeviceThatCannotBeMarkedIsToldWithOneOfItsOwnKeys) {
  for (unsigned device = 0; device < 2; ++device) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    const DeviceTraining training;
    const TemporaryDirectory directory;
    (void)save_values(training, directory / "it");
    cuda.fail(Call::event_record, 1 + device, cudaErrorInvalidValue);
    try {
      (void)CheckpointReader().read(directory / "it", training.state());
      FAIL() << "nothing failed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
      EXPECT_THAT(error.what(),
                  HasSubstr(device == 0 ? "load key embedding " : "load key layers[0].weight "));
      EXPECT_THAT(error.what(), HasSubstr("of device " + std::to_string(device) + ": "));
    }
  }
}

/// A tensor of a file's layout and one that is turned, which libtorch fills.
class FailingLoadThroughLibtorch : public testing::Test {
 protected:
  FailingLoadThroughLibtorch() {
    make_sync_checkpointer()
        ->save(directory_ / "it", dict({{"plain", plain_}, {"turned", turned_}}))
        .written.get();
  }
  /// @returns what it throws
  Error failed_load(const LoadOptions& options = {}) {
    try {
      (void)CheckpointReader().read(directory_ / "it", state_, options);
    } catch (const Error& error) {
      return error;
    } catch (const std::exception& error) {
      ADD_FAILURE() << "thrown as it came: " << error.what();
    }
    return {ErrorCode::ok, "", "", ""};
  }
  void expect_the_next_load_to_work() {
    (void)CheckpointReader().read(directory_ / "it", state_);
    expect_equal(dict({{"plain", plain_}, {"turned", turned_}}), to_host(*state_), "state");
  }

  const at::Tensor plain_ = noise({3'000}, c10::kInt, 1);
  const at::Tensor turned_ = noise({50, 70}, c10::kInt, 2);
  CheckedFakeCuda cuda_{2, Schedule::late()};
  TemporaryDirectory directory_;
  std::optional<StateDict> state_ =
      dict({{"plain", to_device(at::zeros({3'000}, c10::kInt), 0)},
            {"turned", to_device(at::zeros({70, 50}, c10::kInt), 1).t()}});
};

TEST_F(FailingLoadThroughLibtorch, IsToldWithDeviceKeyLibtorchsWordsAndWhatIsOverwritten) {
  fail_libtorch_copy(1, cudaErrorInvalidValue);
  const Error error = failed_load();
  EXPECT_EQ(error.code(), ErrorCode::device_failed);
  EXPECT_EQ(error.what(), "load key turned from " + directory_ / "it" +
                              "/checkpoint_0.pt: copy to device 1: CUDA error: invalid argument; "
                              "already overwritten: plain, turned");
  expect_the_next_load_to_work();
}

TEST_F(FailingLoadThroughLibtorch, IsFoundThoughTheCopyFailsAfterItsCallHasReturned) {
  cuda_.fail(Call::stream_synchronize, 1, cudaErrorLaunchFailure);
  const Error error = failed_load();
  EXPECT_EQ(error.code(), ErrorCode::device_failed);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("load key turned from "), HasSubstr("CUDA device 1: "),
                                  HasSubstr("CUDA error: unspecified launch failure"),
                                  HasSubstr("already overwritten: plain, turned")));
  expect_the_next_load_to_work();
}

TEST_F(FailingLoadThroughLibtorch, ADeviceWithoutMemoryForACopyIsToldAsSuch) {
  fail_libtorch_allocation(1);
  const Error error = failed_load();
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("load key turned from "), HasSubstr("device 1: "),
                                  HasSubstr("CUDA out of memory"),
                                  HasSubstr("already overwritten: plain, turned")));
  expect_the_next_load_to_work();
}

TEST_F(FailingLoadThroughLibtorch, ADeviceWithoutMemoryForANewTensorIsToldAsSuch) {
  state_.reset();
  fail_libtorch_allocation(2);
  const Error error = failed_load({.default_map_location = cuda_device(1)});
  EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
  EXPECT_THAT(error.what(),
              AllOf(HasSubstr("load key turned from "), HasSubstr("14000 bytes on device cuda:1"),
                    HasSubstr("CUDA out of memory")));
}

TEST_F(FailingLoadThroughLibtorch, ABrokenDeviceIsAFailedOneAndAMissingOneAWrongArgument) {
  state_.reset();
  const Error missing = failed_load({.default_map_location = cuda_device(7)});
  EXPECT_EQ(missing.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(missing.what(), AllOf(HasSubstr("load key plain from "), HasSubstr("device cuda:7"),
                                    HasSubstr("invalid device ordinal")));
  cuda_.fault_device(1);
  const Error broken = failed_load({.default_map_location = cuda_device(1)});
  EXPECT_EQ(broken.code(), ErrorCode::device_failed);
  EXPECT_THAT(broken.what(), AllOf(HasSubstr("load key plain from "), HasSubstr("device 1"),
                                   HasSubstr("cudaErrorLaunchFailure: ")));
}

TEST(FailingLoadToDevices, AWindowThatCannotBeRegisteredOnlyMakesItSlower) {
  CheckedFakeCuda cuda(2, Schedule::late());
  DeviceTraining training;
  const TemporaryDirectory directory;
  const StateDict saved = save_values(training, directory / "it");
  training.step();
  cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
  (void)CheckpointReader().read(directory / "it", training.state());
  expect_equal(saved, to_host(training.state()), "state");
}

TEST(FailingLoadToDevices, DamageIsFoundBeforeAnythingIsChangedIfAskedFor) {
  CheckedFakeCuda cuda(2, Schedule::late());
  DeviceTraining training;
  const TemporaryDirectory directory;
  (void)save_values(training, directory / "it");
  training.step();
  const StateDict before = training.values();
  {
    std::fstream file(directory / "it/checkpoint_0.pt",
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(400'000);
    const int byte = file.peek();
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file);
  }
  try {
    (void)CheckpointReader().read(directory / "it", training.state(), {.verify_first = true});
    FAIL() << "nothing was found";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::damaged);
    EXPECT_THAT(error.what(), HasSubstr("nothing of the state was changed"));
  }
  expect_equal(before, to_host(training.state()), "state");
}

}  // namespace
}  // namespace ckptring::test
