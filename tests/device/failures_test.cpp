// Whatever the CUDA runtime refuses fails that save, in words that tell where to look, and nothing
// else.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/error_of.h"
#include "support/failing_calls.h"
#include "support/temporary_directory.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <ckptring/training_state.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/sgd.h>

#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace ckptring::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::StartsWith;

enum class Way { sync, async };
void PrintTo(Way way, std::ostream* out) { *out << (way == Way::sync ? "Sync" : "Async"); }

std::unique_ptr<Checkpointer> make(Way way, std::uint64_t blocks = 8) {
  if (way == Way::sync) return make_sync_checkpointer();
  return make_async_checkpointer(ring_of(blocks));
}

/// Trains, saves and trains on. Returns why it failed, or empty words. Those of a fence begin with
/// its name.
std::string save_and_train(Checkpointer& checkpointer, DeviceTraining& training,
                           const std::string& path) {
  try {
    const SaveHandle save = checkpointer.save(path, training.state());
    std::string fence_failed;
    try {
      fence_both(save);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed) << error.what();
      fence_failed = std::string("fence: ") + error.what();
      save.staged.wait();  // as a trainer has to, which cannot have the device wait
    }
    training.step_on_devices();
    const std::string failed = words_of(save.written.error());
    EXPECT_EQ(words_of(save.staged.error()), failed);
    return failed.empty() ? fence_failed : failed;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device_failed) << error.what();
    return error.what();
  }
}

class DeviceFailures : public testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(Ways, DeviceFailures, testing::Values(Way::sync, Way::async),
                         testing::PrintToStringParamName());

TEST_P(DeviceFailures, AnyCallMayFailAndTheNextSaveIsWhole) {
  unsigned failed = 0;
  FailedCalls met;
  for (const Road road : kRoads) {
    for (std::size_t call = 0; call < kCalls; ++call) {
      const auto which = static_cast<Call>(call);
      for (unsigned nth = 1;; nth += 1 + nth / (road == Road::direct ? 4 : 2)) {
        CheckedFakeCuda cuda(2, Schedule::random(nth));
        DeviceTraining training;
        const TemporaryDirectory directory;
        if (road == Road::window) cuda.limit_registration(1 << 20);  // windows, but no blocks
        auto checkpointer = make(GetParam(), road == Road::window ? 1'000 : 8);
        cuda.reset_counters();
        fail_on(road, cuda, which, nth);
        const StateDict values = training.values();
        const std::string words = save_and_train(*checkpointer, training, directory / "it");
        const bool reached = cuda.counters().of(which) >= nth;
        if (words.empty()) {
          expect_equal(values, loaded(directory / "it"), "state");
        } else {
          ++failed;
          EXPECT_THAT(words, has_words_of_unknown(which));
          EXPECT_THAT(words, ContainsRegex("device (cuda:)?[01]"));
          EXPECT_THAT(words,
                      AnyOf(ContainsRegex("^(save|capture|stage) keys? (embedding|layers|small)"),
                            StartsWith("fence: ")));
          EXPECT_THAT(words, AnyOf(HasSubstr("stream 0x"), HasSubstr("make a stream of device "),
                                   ContainsRegex("allocate [0-9]+ bytes on device "),
                                   HasSubstr("count the CUDA devices: ")));
        }
        if (reached) {
          if (fails_yet(road, cuda)) {
            (void)save_and_train(*checkpointer, training, directory / "fails");
          }
          const StateDict next = training.values();
          EXPECT_EQ(save_and_train(*checkpointer, training, directory / "next"), "")
              << "after " << name(which) << " " << nth << ": " << words;
          expect_equal(next, loaded(directory / "next"), "state");
        }
        checkpointer.reset();
        if (cuda.counters().of(which) < nth) break;
        met.add(which);
        // The training's own calls are not to find an error of ours.
        const cudaError_t left = FakeCuda::runtime().get_last_error();
        if (which != Call::get_last_error) {
          EXPECT_EQ(left, cudaSuccess) << name(which) << " " << nth;
        }
      }
    }
  }
  EXPECT_GE(failed, 10u);
  if (GetParam() == Way::sync) {  // nothing is captured
    met.expect_all_but({Call::malloc, Call::free});
  } else {
    met.expect_all_but({});
  }
}

TEST_P(DeviceFailures, AFailedCopyIsToldWithDeviceStreamKeysAndCudasWords) {
  for (const Call call : {Call::memcpy_batch_async, Call::event_synchronize}) {
    for (const unsigned nth : GetParam() == Way::async ? std::vector{1U, 3U} : std::vector{1U}) {
      CheckedFakeCuda cuda(2, Schedule::random(1));
      DeviceTraining training;
      const TemporaryDirectory directory;
      const auto checkpointer = make(GetParam());
      cuda.fail(call, nth, cudaErrorInvalidValue);
      const std::string words = save_and_train(*checkpointer, training, directory / "it");
      const bool captures = words.starts_with("capture");
      if (GetParam() == Way::sync) {
        EXPECT_FALSE(captures) << words;
      } else if (call == Call::memcpy_batch_async) {
        // The first copies are those that capture, one batch on each device. Which copies are
        // waited for first is a matter of time.
        EXPECT_EQ(captures, nth == 1) << words;
      }
      EXPECT_THAT(words, ContainsRegex(captures ? "capture key [a-z]" : "stage keys? [a-z]"));
      EXPECT_THAT(words, AnyOf(HasSubstr("embedding"), HasSubstr("layers["), HasSubstr("small[")));
      EXPECT_THAT(words, ContainsRegex(std::string("copy ") + (captures ? "within" : "from") +
                                       " device [01] \\(stream 0x[0-9a-f]+\\)"));
      EXPECT_THAT(words, HasSubstr("cudaErrorInvalidValue: invalid argument"));
      EXPECT_FALSE(std::filesystem::exists(directory / "it"));
    }
  }
}

/// What `save` throws.
Error refused(Checkpointer& checkpointer, const std::string& path, const StateDict& state) {
  try {
    (void)checkpointer.save(path, state);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorCode::ok, "", "", ""};
}

TEST_P(DeviceFailures, WhereCudaIsNotToBeHadATensorIsNamedWithTheReason) {
  for (const cudaError_t none :
       {cudaErrorNoDevice, cudaErrorInsufficientDriver, cudaErrorStubLibrary,
        cudaErrorSystemDriverMismatch, cudaErrorCompatNotSupportedOnDevice}) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    DeviceTraining training;
    const TemporaryDirectory directory;
    const auto checkpointer = make(GetParam());
    cuda.fail(Call::get_device_count, 1, none);
    const Error error = refused(*checkpointer, directory / "it", training.state());
    EXPECT_EQ(error.code(), ErrorCode::unsupported_value);
    const std::string reason = std::string(FakeCuda::runtime().get_error_name(none)) + ": " +
                               FakeCuda::runtime().get_error_string(none);
    EXPECT_EQ(error.what(), "save key embedding to " + directory / "it" +
                                ": a tensor on device cuda:0 cannot be stored: " + reason);
    EXPECT_EQ(FakeCuda::runtime().get_last_error(), cudaSuccess);
    EXPECT_FALSE(std::filesystem::exists(directory / "it"));
    checkpointer->save(directory / "host", sample_state()).written.get();
    expect_equal(sample_state(), loaded(directory / "host"), "state");
  }
}

TEST_P(DeviceFailures, ACudaThatFailsToSayWhetherThereAreDevicesIsAFailedDevice) {
  for (const cudaError_t failure : {cudaErrorUnknown, cudaErrorInitializationError,
                                    cudaErrorMemoryAllocation, cudaErrorOperatingSystem}) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    DeviceTraining training;
    const TemporaryDirectory directory;
    const auto checkpointer = make(GetParam());
    cuda.fail(Call::get_device_count, 1, failure);
    const Error error = refused(*checkpointer, directory / "it", training.state());
    EXPECT_EQ(error.code(), ErrorCode::device_failed);
    EXPECT_THAT(error.what(),
                StartsWith("save key embedding to " + directory / "it" + ": device cuda:0: "));
    EXPECT_THAT(error.what(), HasSubstr(FakeCuda::runtime().get_error_name(failure)));
    EXPECT_EQ(FakeCuda::runtime().get_last_error(), cudaSuccess);
    const StateDict values = training.values();
    EXPECT_EQ(save_and_train(*checkpointer, training, directory / "it"), "");
    expect_equal(values, loaded(directory / "it"), "state");
  }
}

TEST_P(DeviceFailures, AStreamThatCannotBeMarkedIsToldWithDeviceStreamKeyAndCudasWords) {
  for (const Call call : {Call::event_create_with_flags, Call::event_record}) {
    for (unsigned device = 0; device < 2; ++device) {
      CheckedFakeCuda cuda(2, Schedule::eager());
      DeviceTraining training;
      const TemporaryDirectory directory;
      const auto checkpointer = make(GetParam());
      const c10::StreamGuard first(pool_stream(0));
      const c10::StreamGuard second(pool_stream(1));
      cuda.fail(call, 1 + device, cudaErrorInvalidValue);
      const Error error = refused(*checkpointer, directory / "it", training.state());
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
      const std::string key = device == 0 ? "embedding" : "layers[0].weight";
      EXPECT_THAT(error.what(), StartsWith("save key " + key + " to " + directory / "it" + ": "));
      EXPECT_THAT(error.what(), ContainsRegex("stream 0x[1-9a-f][0-9a-f]* of device " +
                                              std::to_string(device) + ": "));
      EXPECT_THAT(error.what(), HasSubstr("cudaErrorInvalidValue: invalid argument"));
    }
  }
}

TEST_P(DeviceFailures, CopiesThatCannotBeOrderedAreToldWithDeviceStreamKeyAndCudasWords) {
  for (unsigned device = 0; device < 2; ++device) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    DeviceTraining training;
    const TemporaryDirectory directory;
    const auto checkpointer = make(GetParam());
    // Each device's capture waits and is waited for before.
    const unsigned before = GetParam() == Way::async ? 4 : 0;
    cuda.fail(Call::stream_wait_event, before + 1 + device, cudaErrorInvalidValue);
    const SaveHandle save = checkpointer->save(directory / "it", training.state());
    const std::string key = device == 0 ? "embedding" : "layers[0].weight";
    for (const std::exception_ptr& error : {save.staged.error(), save.written.error()}) {
      EXPECT_THAT(words_of(error), StartsWith("stage key " + key + ": "));
      EXPECT_THAT(words_of(error), ContainsRegex("copy from device " + std::to_string(device) +
                                                 " \\(stream 0x[1-9a-f][0-9a-f]*\\): "));
      EXPECT_THAT(words_of(error), HasSubstr("cudaErrorInvalidValue: invalid argument"));
    }
  }
}

TEST_P(DeviceFailures, WhatLibtorchRefusesIsToldInTheSameWay) {
  CheckedFakeCuda cuda(2, Schedule::eager());
  const TemporaryDirectory directory;
  const auto checkpointer = make(GetParam());
  const c10::Device nowhere(c10::kCUDA, 7);
  c10::Storage storage(c10::Storage::use_byte_size_t(), 4, at::DataPtr(nullptr, nowhere), nullptr,
                       false);
  at::Tensor lost = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA),
      caffe2::TypeMeta::Make<float>());
  const Error error = refused(*checkpointer, directory / "it", dict({{"w", lost}}));
  EXPECT_EQ(error.code(), ErrorCode::device_failed);
  EXPECT_THAT(error.what(), StartsWith("save key w to " + directory / "it" + ": "));
  EXPECT_THAT(error.what(), AllOf(HasSubstr("of CUDA device 7: "), HasSubstr("invalid device")));
  const SaveHandle save = checkpointer->save(directory / "it", to_device(sample_state()));
  if (GetParam() == Way::async) {
    try {
      save.fence(c10::Stream(c10::Stream::DEFAULT, nowhere));
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& refused_fence) {
      EXPECT_EQ(refused_fence.code(), ErrorCode::device_failed);
    }
  }
  save.written.get();
}

TEST_P(DeviceFailures, AFaultOfADeviceFailsSavesFromItAndNoOthers) {
  CheckedFakeCuda cuda(2, Schedule::late());
  DeviceTraining training;
  const TemporaryDirectory directory;
  const auto checkpointer = make(GetParam());
  const StateDict values = training.values();
  EXPECT_EQ(save_and_train(*checkpointer, training, directory / "before"), "");
  const std::vector<StateDict> on = {to_device(sample_state(), 0), to_device(sample_state(), 1)};
  cuda.fault_copy(1);
  std::string words;
  for (int i = 0; i < 3; ++i) {
    words = save_and_train(*checkpointer, training, directory / "broken");
    EXPECT_THAT(words, HasSubstr("cudaErrorIllegalAddress: ")) << i;
  }
  const bool first_broke = words.find("device 0") != std::string::npos;
  EXPECT_FALSE(std::filesystem::exists(directory / "broken"));
  checkpointer->save(directory / "other", on[first_broke ? 1 : 0]).written.get();
  checkpointer->save(directory / "host", sample_state()).written.get();
  expect_equal(values, loaded(directory / "before"), "state");
  expect_equal(sample_state(), loaded(directory / "other"), "state");
  expect_equal(sample_state(), loaded(directory / "host"), "state");
}

TEST(DeviceFault, WhileCopiesAreUnderWayFailsTheSaveAndHoldsNobody) {
  for (const Schedule& schedule : all_schedules(4)) {
    CheckedFakeCuda cuda(2, schedule);
    DeviceTraining training;
    const TemporaryDirectory directory;
    const auto checkpointer = make(Way::async, kLargeRing);
    auto held = cuda.hold(cuda.null_stream(1));
    const SaveHandle save = checkpointer->save(directory / "it", training.state());
    fence_both(save);
    cuda.fault_device(1);
    held.release();
    const std::string words = words_of(save.written.error());
    EXPECT_THAT(words, ContainsRegex("copy from device 1 "));
    EXPECT_THAT(words, HasSubstr("cudaErrorLaunchFailure: "));
    EXPECT_FALSE(std::filesystem::exists(directory / "it"));
  }
}

TEST(DeviceFault, WhatFailsAPrepareIsToldAsSuch) {
  for (unsigned device = 0; device < 2; ++device) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    DeviceTraining training;
    const auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
    cuda.fail(Call::event_record, 1 + device, cudaErrorInvalidValue);
    const Error error = error_of([&] { (void)checkpointer->prepare(training.state()); });
    EXPECT_EQ(error.code(), ErrorCode::device_failed);
    EXPECT_EQ(error.path(), "");
    const std::string key = device == 0 ? "embedding" : "layers[0].weight";
    EXPECT_THAT(error.what(), StartsWith("prepare key " + key + ": "));
    EXPECT_THAT(error.what(), HasSubstr("cudaErrorInvalidValue: invalid argument"));
  }
}

TEST(DeviceFault, ANumberThatCannotBeReadIsNoMismatch) {
  CheckedFakeCuda cuda(2, Schedule::late());
  torch::optim::SGD optimizer(std::vector{at::zeros({2})}, torch::optim::SGDOptions(0.5));
  const StateDict state = collect_optimizer(optimizer);
  state.at("param_groups")
      .toListRef()[0]
      .toGenericDict()
      .insert_or_assign("lr", at::full({}, 0.25).to(cuda_device(1)));
  fail_libtorch_copy(1, cudaErrorLaunchFailure);
  const Error error = error_of([&] { restore_optimizer(optimizer, state); });
  EXPECT_EQ(error.code(), ErrorCode::device_failed);
  EXPECT_THAT(error.what(), AllOf(StartsWith("restore key param_groups[0].lr: "),
                                  HasSubstr("unspecified launch failure")));
  EXPECT_EQ(optimizer.param_groups()[0].options().get_lr(), 0.5);
  restore_optimizer(optimizer, state);
  EXPECT_EQ(optimizer.param_groups()[0].options().get_lr(), 0.25);
}

TEST(DeviceFault, AFailureThatNobodyFetchedIsHandedOverOnce) {
  CheckedFakeCuda cuda(2, Schedule::late());
  DeviceTraining training;
  const TemporaryDirectory directory;
  const auto checkpointer = make(Way::async, kLargeRing);
  cuda.fail(Call::memcpy_batch_async, 1, cudaErrorInvalidValue);
  checkpointer->save(directory / "it", training.state()).written.wait();
  const SaveHandle next = checkpointer->save(directory / "next", training.state());
  EXPECT_THAT(words_of(next.previous_failure), HasSubstr("cudaErrorInvalidValue: "));
  next.written.get();
  EXPECT_EQ(checkpointer->save(directory / "last", training.state()).previous_failure, nullptr);
}

}  // namespace
}  // namespace ckptring::test
