// What is captured on a device, what is not, and what a save cannot be a part of.
#include "device/device_training.h"
#include "support/checked_fake_cuda.h"
#include "support/error_of.h"
#include "support/temporary_directory.h"

#include <c10/core/StreamGuard.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <future>
#include <string>
#include <thread>

namespace ckptring::test {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kLarge = 1 << 18;  ///< ints: 16 blocks

at::Tensor on_device(std::int64_t elements, int value, int device = 0) {
  return at::full({elements}, value,
                  at::TensorOptions().dtype(at::kInt).device(cuda_device(device)));
}

class DeviceCapture : public testing::TestWithParam<Schedule> {
 protected:
  /// A kernel that raises no version, on the current stream.
  void write_silently(const at::Tensor& tensor) {
    cudaStream_t stream = native_handle(current_stream(tensor.device().index()));
    if (stream == nullptr) stream = cuda_.null_stream(tensor.device().index());
    cuda_.launch_fill(stream, tensor.mutable_data_ptr(), tensor.nbytes(), std::byte{0xee});
  }

  CheckedFakeCuda cuda_{2, GetParam()};
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, DeviceCapture, testing::ValuesIn(all_schedules(6)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(DeviceCapture, HoldsWhatTheKernelsBeforeSaveHaveWrittenAndNoneOfThoseAfter) {
  CheckpointerConfig config = ring_of(kSmallRing);
  config.max_saves_in_flight = 3;
  const auto checkpointer = make_async_checkpointer(config);
  const at::Tensor small = on_device(1000, 0, 1);
  const at::Tensor large = on_device(kLarge, 7, 0);
  const at::Tensor buffer = on_device(kLarge, 0, 0);
  const StateDict state =
      dict({{"large", large}, {"buffer", declare_volatile(buffer)}, {"small", small}});
  std::vector<SaveHandle> saves;
  for (int i = 0; i < 6; ++i) {
    auto held = cuda_.hold(cuda_.null_stream(1));  // nothing of this has run when save returns
    small.fill_(i);
    buffer.fill_(-i);
    saves.push_back(checkpointer->save(directory_ / std::to_string(i), state));
    write_silently(small);
    write_silently(buffer);
  }
  for (int i = 0; i < 6; ++i) {
    saves[static_cast<std::size_t>(i)].written.get();
    const StateDict expected = dict({{"large", at::full({kLarge}, 7, c10::kInt)},
                                     {"buffer", at::full({kLarge}, -i, c10::kInt)},
                                     {"small", at::full({1000}, i, c10::kInt)}});
    expect_equal(expected, loaded(directory_ / std::to_string(i)), "save " + std::to_string(i));
  }
}

TEST_P(DeviceCapture, IsOrderedByTheStreamThatIsCurrent) {
  const auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
  const at::Tensor small = on_device(1000, 1);
  synchronise(current_stream(0));
  const c10::StreamGuard other(pool_stream(0));
  auto held = cuda_.hold(native_handle(current_stream(0)));
  small.fill_(2);
  const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"small", small}}));
  small.fill_(3);
  held.release();
  save.written.get();
  expect_equal(dict({{"small", at::full({1000}, 2, c10::kInt)}}), loaded(directory_ / "it"),
               "state");
  synchronise(current_stream(0));
}

class DeviceCaptureTest : public testing::Test {
 protected:
  CheckedFakeCuda cuda_{2, Schedule::random(3)};
  TemporaryDirectory directory_;
};

TEST_F(DeviceCaptureTest, HasItsMemoryFromPrepareAndGivesItBack) {
  const StateDict state =
      dict({{"small", on_device(1000, 1)}, {"buffer", declare_volatile(on_device(kLarge, 2, 1))}});
  {
    const auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
    checkpointer->prepare(state);
    const std::size_t prepared = cuda_.allocated_bytes();
    EXPECT_GE(prepared, 4'000u + 4 * kLarge);
    EXPECT_LE(prepared, 4'100u + 4 * kLarge);
    cuda_.reset_counters();
    for (int i = 0; i < 3; ++i) checkpointer->save(directory_ / "it", state).written.get();
    EXPECT_EQ(cuda_.counters().of(Call::malloc), 0u);
    EXPECT_EQ(cuda_.allocated_bytes(), prepared);
  }
  EXPECT_EQ(cuda_.allocated_bytes(), 0u);
}

TEST_F(DeviceCaptureTest, WithoutMemoryIsToldWithTheKeyAndTheNextSaveWorks) {
  const auto checkpointer = make_async_checkpointer(ring_of(kSmallRing));
  const StateDict state = dict({{"layer", dict({{"small", on_device(1000, 1)}})}});
  cuda_.limit_allocated_bytes(100);
  for (const Error& error : {error_of([&] { (void)checkpointer->prepare(state); }), error_of([&] {
                               checkpointer->save(directory_ / "it", state).staged.get();
                             })}) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_THAT(error.what(), HasSubstr("key layer.small "));
    EXPECT_THAT(error.what(), HasSubstr("bytes on device 0: cudaErrorMemoryAllocation"));
  }
  cuda_.limit_allocated_bytes(1 << 20);
  checkpointer->save(directory_ / "it", state).written.get();
}

TEST_F(DeviceCaptureTest, ChangesOfLargeTensorsBeforeAFenceFailTheSaveWithTheKey) {
  for (const std::uint64_t blocks : {kSmallRing, kLargeRing}) {
    const auto checkpointer = make_async_checkpointer(ring_of(blocks));
    const at::Tensor large = on_device(kLarge, 1, 1);
    const StateDict state = dict({{"layer", dict({{"large", large}})}, {"other", on_device(9, 1)}});
    auto held = cuda_.hold(cuda_.null_stream(1));
    const SaveHandle save = checkpointer->save(directory_ / "it", state);
    large.add_(1);
    held.release();
    fence_both(save);
    const Error error = error_of([&] { save.written.get(); });
    EXPECT_EQ(error.code(), ErrorCode::changed_while_staging);
    EXPECT_THAT(error.what(), HasSubstr("key layer.large "));
    // After a fence they may change, on every stream that is fenced.
    const SaveHandle next = checkpointer->save(directory_ / "it", state);
    fence_both(next);
    large.add_(1);
    next.fence(pool_stream(1));
    next.written.get();
  }
}

TEST_F(DeviceCaptureTest, ChangesBeforeStagedFailTheSaveWhereNobodyCallsFence) {
  const auto checkpointer = make_async_checkpointer(ring_of(kLargeRing));
  const at::Tensor large = on_device(kLarge, 1);
  auto held = cuda_.hold(cuda_.null_stream(0));
  const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"large", large}}));
  large.add_(1);
  held.release();
  EXPECT_EQ(error_of([&] { save.staged.get(); }).code(), ErrorCode::changed_while_staging);
}

TEST_F(DeviceCaptureTest, ASaveIsNoPartOfACudaGraph) {
  const auto async = make_async_checkpointer(ring_of(kLargeRing));
  const auto sync = make_sync_checkpointer();
  const StateDict state = dict({{"layer", dict({{"large", on_device(kLarge, 1)}})}});
  const SaveHandle before = async->save(directory_ / "it", state);
  const c10::Stream stream = pool_stream(0);
  const c10::StreamGuard guard(stream);
  cuda_.begin_graph_capture(native_handle(stream));
  for (const Error& error : {error_of([&] { (void)async->save(directory_ / "it", state); }),
                             error_of([&] { (void)async->prepare(state); }),
                             error_of([&] { (void)sync->save(directory_ / "it", state); })}) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), testing::ContainsRegex("(save|prepare) key layer.large( to .*)?: "));
    EXPECT_THAT(error.what(), HasSubstr("is being captured into a CUDA graph"));
  }
  const Error fence = error_of([&] { before.fence(stream); });
  EXPECT_EQ(fence.code(), ErrorCode::invalid_argument);
  EXPECT_THAT(fence.what(), HasSubstr("is being captured into a CUDA graph"));
  cuda_.end_graph_capture(native_handle(stream));
  before.written.get();
  async->save(directory_ / "it", state).written.get();
  // The NULL stream cannot even be asked while one that takes turns with it is captured.
  const c10::StreamGuard default_stream(c10::Stream(c10::Stream::DEFAULT, cuda_device(0)));
  auto* const turns = cuda_.training_stream(0, cudaStreamDefault);
  cuda_.begin_graph_capture(turns);
  EXPECT_EQ(error_of([&] { (void)async->save(directory_ / "it", state); }).code(),
            ErrorCode::invalid_argument);
  cuda_.end_graph_capture(turns);
  async->save(directory_ / "it", state).written.get();
}

TEST_F(DeviceCaptureTest, NorIsALoad) {
  make_sync_checkpointer()->save(directory_ / "it", dict({{"w", on_device(kLarge, 1)}}));
  const c10::Stream stream = pool_stream(0);
  const c10::StreamGuard guard(stream);
  cuda_.begin_graph_capture(native_handle(stream));
  const Error error = error_of([&] {
    (void)CheckpointReader().read(directory_ / "it", {}, {.default_map_location = cuda_device(0)});
  });
  EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
  EXPECT_THAT(error.what(), HasSubstr("key w "));
  EXPECT_THAT(error.what(), HasSubstr("is being captured into a CUDA graph"));
  cuda_.end_graph_capture(native_handle(stream));
}

TEST_F(DeviceCaptureTest, SavesAndLoadsLeaveAGraphAloneThatAnotherThreadCaptures) {
  const StateDict state = dict({{"large", on_device(kLarge, 1)}, {"small", on_device(9, 2, 1)}});
  const StateDict values = to_host(state);
  const c10::StreamGuard guard(pool_stream(0));
  auto* const captured = cuda_.training_stream(0);
  std::promise<void> begun;
  std::promise<void> enough;
  std::thread capturing([&] {
    cuda_.begin_graph_capture(captured, cudaStreamCaptureModeGlobal);
    begun.set_value();
    enough.get_future().wait();
    EXPECT_TRUE(cuda_.end_graph_capture(captured)) << "it was lost";
  });
  begun.get_future().wait();
  const auto use_all = [&] {
    const auto async = make_async_checkpointer(ring_of(kLargeRing));
    async->prepare(state);
    const SaveHandle save = async->save(directory_ / "it", state);
    fence_both(save);
    save.written.get();
    expect_equal(values, loaded(directory_ / "it"), "saved");
    const StateDict there = dict({{"large", on_device(kLarge, 0)}, {"small", on_device(9, 0, 1)}});
    (void)CheckpointReader().read(directory_ / "it", there);
    expect_equal(values, to_host(there), "loaded into place");
    make_sync_checkpointer()->save(directory_ / "sync", state);
    expect_equal(
        values,
        to_host(CheckpointReader()
                    .read(directory_ / "sync", {}, {.default_map_location = cuda_device(0)})
                    .state),
        "loaded onto one device");
  };
  EXPECT_NO_THROW(use_all());
  enough.set_value();
  capturing.join();
}

}  // namespace
}  // namespace ckptring::test
