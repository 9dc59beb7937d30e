// What is saved from devices comes back, whatever the state looks like and wherever it goes.
#include "gpu/gpu_test.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

namespace ckptring::test {
namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Storages that are shared, cut and turned, lazy bits, several dtypes, nothing at all.
StateDict state_with_views() {
  const at::Tensor shared = noise({60, 70}, c10::kFloat, 20);
  const at::Tensor complex = noise({3, 3}, c10::kComplexFloat, 21);
  StateDict state = sample_state();
  state.insert_or_assign("whole", shared);
  state.insert_or_assign("turned", shared.t());
  state.insert_or_assign("cut", shared.slice(1, 3, 60, 7));
  state.insert_or_assign("conjugated", complex.conj());
  state.insert_or_assign("empty", at::empty({0, 3}));
  state.insert_or_assign("large", noise({3, 1 << 20}, c10::kFloat, 22));  // 12 blocks
  return state;
}

using GpuValues = GpuTest;

TEST_F(GpuValues, BothPathsSaveAStateOfADeviceInTheSameBytes) {
  const StateDict expected = state_with_views();
  const StateDict state = to_device(expected);
  make_sync_checkpointer()->save(directory_ / "sync", state).written.get();
  for (const std::uint64_t blocks : {0, 4}) {
    make_async_checkpointer(ring_of(blocks))->save(directory_ / "async", state).written.get();
    EXPECT_TRUE(contents(directory_ / "async/checkpoint_0.pt") ==
                contents(directory_ / "sync/checkpoint_0.pt"));
  }
  const StateDict loaded = load("sync");
  expect_equal(expected, loaded, "state");
  EXPECT_TRUE(tensor_at(loaded, "whole").is_alias_of(tensor_at(loaded, "turned")));
  EXPECT_TRUE(tensor_at(loaded, "whole").is_alias_of(tensor_at(loaded, "cut")));
}

TEST_F(GpuValues, AStateOfTheHostAndOfAllDevicesIsSavedAsAWhole) {
  const StateDict expected = state_with_views();
  std::vector<c10::Device> places = {c10::kCPU};
  for (int device = 0; device < devices_.count(); ++device) places.push_back(cuda_device(device));
  const StateDict state = moved_to(expected, places);
  const auto checkpointer = make_async_checkpointer(ring_of(4));
  for (int round = 0; round < 2; ++round) {
    checkpointer->save(directory_ / "it", state).written.get();
    expect_equal(expected, load("it"), "state");
  }
  make_sync_checkpointer()->save(directory_ / "sync", state).written.get();
  expect_equal(expected, load("sync"), "state");
}

TEST_F(GpuValues, TwentyThousandSmallTensorsComeBack) {
  StateDict state = make_state_dict();
  StateDict expected = make_state_dict();
  for (std::int64_t i = 0; i < 20'000; ++i) {
    expected.insert_or_assign(i, at::full({1 + i % 7}, static_cast<double>(i)));
    state.insert_or_assign(i, full(1 + i % 7, static_cast<double>(i), 0));
  }
  const auto checkpointer = make_async_checkpointer(ring_of(0));
  checkpointer->save(directory_ / "it", state).written.get();
  expect_equal(expected, load("it"), "state");
}

TEST_F(GpuValues, ATensorThatNobodyElseKeepsIsSavedWhole) {
  const auto checkpointer = make_async_checkpointer(ring_of(2));
  constexpr std::int64_t kElements = 4 << 20;
  const SaveHandle save =
      checkpointer->save(directory_ / "it", dict({{"w", full(kElements, 1, 0)}}));
  // Where its memory would be used again.
  const at::Tensor other = full(kElements, 2, 0);
  save.written.get();
  expect_equal(dict({{"w", at::ones({kElements})}}), load("it"), "state");
}

TEST_F(GpuValues, WhatWasSavedIsLoadedToADevice) {
  const StateDict expected = state_with_views();
  make_sync_checkpointer()->save(directory_ / "it", to_device(expected)).written.get();
  const c10::Device last = cuda_device(devices_.count() - 1);
  const StateDict loaded = load("it", {.default_map_location = last});
  EXPECT_EQ(tensor_at(loaded, "large").device(), last);
  EXPECT_TRUE(tensor_at(loaded, "whole").is_alias_of(tensor_at(loaded, "turned")));
  expect_equal(expected, to_host(loaded), "state");
}

TEST_F(GpuValues, TensorsOfADeviceAreFilledInPlace) {
  const StateDict expected = state_with_views();
  make_sync_checkpointer()->save(directory_ / "it", expected).written.get();
  StateDict state = to_device(expected);
  const at::Tensor large = tensor_at(state, "large");
  large.zero_();
  tensor_at(state, "whole").zero_();
  (void)CheckpointReader().read(directory_ / "it", state);
  EXPECT_TRUE(tensor_at(state, "large").is_same(large));
  expect_equal(expected, to_host(state), "state");
}

TEST_F(GpuValues, WhatCannotBeDoneIsSaid) {
  const auto code_of = [](const auto& call, const std::string& part) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(part));
      return error.code();
    }
    return ErrorCode::ok;
  };
  const auto checkpointer = make_async_checkpointer(ring_of(2));
  const StateDict state = dict({{"w", full(10, 1, 0)}});
  const SaveHandle save = checkpointer->save(directory_ / "it", state);
  EXPECT_EQ(code_of([&] { save.fence(c10::Stream(c10::Stream::DEFAULT, c10::kCPU)); }, "cpu"),
            ErrorCode::invalid_argument);
  save.written.get();
  const StateDict meta = dict(
      {{"a", dict({{"b", at::empty({3}, at::TensorOptions().device(c10::kMeta))}})}, {"w", 1}});
  EXPECT_EQ(code_of([&] { (void)checkpointer->save(directory_ / "meta", meta); }, "key a.b "),
            ErrorCode::unsupported_value);
  const LoadOptions nowhere{.default_map_location = cuda_device(devices_.count())};
  EXPECT_EQ(code_of([&] { (void)load("it", nowhere); }, "key w "), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace ckptring::test
