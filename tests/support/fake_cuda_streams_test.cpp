#include "support/fake_cuda.h"

#include "support/fake_cuda_rules.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ckptring::test {
namespace {

FAKE_CUDA_SCHEDULES(FakeCudaSchedules);

TEST_F(TwoFakeDevices, EachThreadHasACurrentDeviceAtFirstTheFirst) {
  EXPECT_EQ(api_.set_device(1), cudaSuccess);
  int other = -1;
  std::thread([&] { (void)api_.get_device(&other); }).join();
  int ours = -1;
  (void)api_.get_device(&ours);
  EXPECT_EQ(ours, 1);
  EXPECT_EQ(other, 0);
}

TEST_F(TwoFakeDevices, ADeviceThatIsNotThereCannotBeCurrent) {
  EXPECT_EQ(api_.set_device(2), cudaErrorInvalidDevice);
  EXPECT_EQ(api_.set_device(-1), cudaErrorInvalidDevice);
}

TEST(FakeCudaContexts, AreMadeByCallsThatNeedOne) {
  using testing::ElementsAre;
  using testing::Pair;
  CheckedFakeCuda cuda(4);
  const stage::CudaRuntime& api = FakeCuda::runtime();
  int number = 0;
  EXPECT_EQ(api.get_device_count(&number), cudaSuccess);
  EXPECT_EQ(api.get_device(&number), cudaSuccess);
  EXPECT_EQ(api.get_last_error(), cudaSuccess);
  EXPECT_THAT(cuda.contexts(), testing::IsEmpty());
  auto* const stream = cuda.training_stream(3);
  EXPECT_EQ(api.set_device(1), cudaSuccess);
  EXPECT_THAT(cuda.contexts(), ElementsAre(Pair(1, "cudaSetDevice"), Pair(3, "the training")));
  // In a thread that has chosen no device, though it names a stream of another one.
  std::thread([&] { EXPECT_EQ(api.stream_synchronize(stream), cudaSuccess); }).join();
  EXPECT_THAT(cuda.contexts(), ElementsAre(Pair(0, "cudaStreamSynchronize"),
                                           Pair(1, "cudaSetDevice"), Pair(3, "the training")));
}

TEST_F(TwoFakeDevices, AnEventIsRecordedOnlyInAStreamOfItsDevice) {
  auto* const of_first = cuda_.training_stream(0);
  (void)api_.set_device(1);
  auto* const event = make_event();
  EXPECT_EQ(api_.event_record(event, of_first), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(api_.event_record(event, cuda_.training_stream(1)), cudaSuccess);
  EXPECT_EQ(api_.event_record(event, nullptr), cudaSuccess) << "that of the current device";
  (void)api_.set_device(0);
  EXPECT_EQ(api_.event_record(event, nullptr), cudaErrorInvalidResourceHandle);
  (void)api_.event_destroy(event);
}

TEST_F(TwoFakeDevices, ACopyMayUseAStreamOfADeviceThatIsNotCurrent) {
  void* const memory = device_memory(1, 100, 3);
  auto* const stream = cuda_.training_stream(1);
  EXPECT_EQ(copy(host_.data(), memory, 100, stream), cudaSuccess);
  cuda_.synchronise(stream);
  EXPECT_EQ(std::vector(host_.data(), host_.data() + 100), all(100, 3));
}

TEST(FakeCudaWithoutDevices, SaysSo) {
  const CheckedFakeCuda cuda(0);
  int count = -1;
  EXPECT_EQ(FakeCuda::runtime().get_device_count(&count), cudaErrorNoDevice);
  cudaStream_t stream = nullptr;
  EXPECT_EQ(FakeCuda::runtime().stream_create_with_flags(&stream, 0), cudaErrorNoDevice);
}

TEST_F(FakeCudaRules, WorkOfAStreamMayNotCallTheRuntime) {
  auto* const stream = cuda_.training_stream(0);
  cudaError_t error = cudaSuccess;
  cuda_.launch(stream, [&](DeviceMemoryAccess&) {
    int device = 0;
    error = api_.get_device(&device);
  });
  cuda_.synchronise(stream);
  EXPECT_EQ(error, cudaErrorNotPermitted);
  expect_violation("cudaGetDevice: called from the work of a stream");
}

// --- Streams and events

TEST_P(FakeCudaSchedules, WorkOfAStreamRunsInOrder) {
  void* const memory = device_memory(0, host_.size(), 0);
  auto* const stream = make_stream();
  std::vector<std::byte> seen;
  for (int i = 1; i <= 20; ++i) {
    cuda_.launch_fill(stream, memory, host_.size(), static_cast<std::byte>(i));
    EXPECT_EQ(copy(host_.data(), memory, host_.size(), stream), cudaSuccess);
    cuda_.launch(stream, [&](DeviceMemoryAccess&) {
      EXPECT_TRUE(host_.hold(std::to_integer<int>(host_.data()[0])));
      seen.push_back(host_.data()[0]);
    });
  }
  EXPECT_EQ(api_.stream_synchronize(stream), cudaSuccess);
  std::vector<std::byte> expected(20);
  for (std::size_t i = 0; i < 20; ++i) expected[i] = static_cast<std::byte>(i + 1);
  EXPECT_EQ(seen, expected);
  (void)api_.stream_destroy(stream);
}

TEST_P(FakeCudaSchedules, AStreamWaitsForWhatAnEventOfAnotherDeviceHasRecorded) {
  void* const memory = device_memory(1, host_.size(), 0);
  auto* const training = cuda_.training_stream(1);
  auto* const copies = make_stream();
  (void)api_.set_device(1);
  auto* const produced = make_event();
  for (int i = 1; i <= 10; ++i) {
    cuda_.launch_fill(training, memory, host_.size(), static_cast<std::byte>(i));
    EXPECT_EQ(api_.event_record(produced, training), cudaSuccess);
    EXPECT_EQ(api_.stream_wait_event(copies, produced, 0), cudaSuccess);
    EXPECT_EQ(copy(host_.data(), memory, host_.size(), copies), cudaSuccess);
    EXPECT_EQ(api_.stream_synchronize(copies), cudaSuccess);
    EXPECT_TRUE(host_.hold(i));
  }
  (void)api_.event_destroy(produced);
  (void)api_.stream_destroy(copies);
}

TEST_P(FakeCudaSchedules, AnEventThatIsRecordedAgainLeavesAloneWhoWaitsAlready) {
  auto* const first = cuda_.training_stream(0);
  auto* const second = cuda_.training_stream(0);
  auto* const waits = cuda_.training_stream(0);
  auto* const event = make_event();
  std::atomic<bool> ran = false;
  cuda_.launch(first, [&](DeviceMemoryAccess&) { ran = true; });
  EXPECT_EQ(api_.event_record(event, first), cudaSuccess);
  EXPECT_EQ(api_.stream_wait_event(waits, event, 0), cudaSuccess);
  const auto held = cuda_.hold(second);
  EXPECT_EQ(api_.event_record(event, second), cudaSuccess);
  EXPECT_EQ(api_.stream_synchronize(waits), cudaSuccess);
  EXPECT_TRUE(ran);
  (void)api_.event_destroy(event);
}

TEST_P(FakeCudaSchedules, AnEventThatWasNeverRecordedHoldsNobodyUp) {
  auto* const stream = cuda_.training_stream(0);
  auto* const event = make_event();
  EXPECT_EQ(api_.event_synchronize(event), cudaSuccess);
  EXPECT_EQ(api_.stream_wait_event(stream, event, 0), cudaSuccess);
  const auto held = cuda_.hold(cuda_.training_stream(0));
  EXPECT_EQ(api_.stream_synchronize(stream), cudaSuccess);
  (void)api_.event_destroy(event);
}

TEST_P(FakeCudaSchedules, ADestroyedEventStillOrdersWhoWaitsForIt) {
  void* const memory = device_memory(0, 100, 1);
  auto* const training = cuda_.training_stream(0);
  auto* const copies = make_stream();
  auto* const event = make_event();
  cuda_.launch_fill(training, memory, 100, std::byte{2});
  (void)api_.event_record(event, training);
  (void)api_.stream_wait_event(copies, event, 0);
  EXPECT_EQ(api_.event_destroy(event), cudaSuccess);
  (void)copy(host_.data(), memory, 100, copies);
  (void)api_.stream_synchronize(copies);
  EXPECT_EQ(host_.data()[99], std::byte{2});
  (void)api_.stream_destroy(copies);
}

TEST_P(FakeCudaSchedules, ADestroyedStreamFinishesItsWork) {
  void* const memory = device_memory(0, 100, 1);
  auto* const stream = make_stream();
  cuda_.launch_fill(stream, memory, 100, std::byte{2});
  EXPECT_EQ(api_.stream_destroy(stream), cudaSuccess);
  EXPECT_THAT(cuda_.finish(),
              testing::Contains(testing::HasSubstr("registered memory was not unregistered")));
  EXPECT_EQ(cuda_.read(memory, 100), all(100, 2));
}

TEST_P(FakeCudaSchedules, TheNullStreamTakesTurnsWithBlockingStreams) {
  void* const memory = device_memory(0, 100, 1);
  auto* const blocking = make_stream(cudaStreamDefault);
  for (int i = 2; i < 12; i += 2) {
    cuda_.launch_fill(nullptr, memory, 100, static_cast<std::byte>(i));
    (void)copy(host_.data(), memory, 100, blocking);
    cuda_.launch_fill(nullptr, memory, 100, static_cast<std::byte>(i + 1));
    (void)copy(host_.data() + 100, memory, 100, blocking);
    (void)api_.stream_synchronize(blocking);
    EXPECT_EQ(std::to_integer<int>(host_.data()[50]), i);
    EXPECT_EQ(std::to_integer<int>(host_.data()[150]), i + 1);
  }
  (void)api_.stream_destroy(blocking);
}

TEST_F(LateFakeCuda, TheNullStreamDoesNotTakeTurnsWithNonBlockingStreams) {
  auto* const stream = make_stream();
  cuda_.launch(nullptr, [](DeviceMemoryAccess&) { ADD_FAILURE() << "nobody waits for this"; });
  EXPECT_EQ(api_.stream_synchronize(stream), cudaSuccess);
  EXPECT_FALSE(cuda_.idle(nullptr));
  (void)api_.stream_destroy(stream);
  cuda_.fault_device(0);  // the kernel is never run
  EXPECT_NE(api_.get_last_error(), cudaSuccess);
}

TEST_F(FakeCudaRules, AStreamThatIsCapturedIntoAGraphMayBeAskedAboutAndNothingElse) {
  auto* const stream = cuda_.training_stream(0);
  auto* const other = cuda_.training_stream(0);
  auto* const event = make_event();
  const auto status_of = [&](cudaStream_t of) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    EXPECT_EQ(api_.stream_is_capturing(of, &status), cudaSuccess);
    return status;
  };
  EXPECT_EQ(status_of(stream), cudaStreamCaptureStatusNone);
  cuda_.begin_graph_capture(stream, cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(status_of(stream), cudaStreamCaptureStatusActive);
  EXPECT_EQ(status_of(other), cudaStreamCaptureStatusNone);
  EXPECT_EQ(status_of(nullptr), cudaStreamCaptureStatusNone);
  EXPECT_EQ(api_.event_record(event, stream), cudaErrorStreamCaptureUnsupported);
  expect_violation("cudaEventRecord: the stream is being captured into a graph");
  EXPECT_EQ(api_.event_record(event, other), cudaSuccess);
  EXPECT_EQ(api_.stream_wait_event(stream, event, 0), cudaErrorStreamCaptureUnsupported);
  expect_violation("cudaStreamWaitEvent: the stream is being captured into a graph");
  EXPECT_EQ(api_.stream_synchronize(stream), cudaErrorStreamCaptureUnsupported);
  expect_violation("cudaStreamSynchronize: the stream is being captured into a graph");
  EXPECT_EQ(status_of(stream), cudaStreamCaptureStatusInvalidated);
  EXPECT_FALSE(cuda_.end_graph_capture(stream));
  EXPECT_EQ(status_of(stream), cudaStreamCaptureStatusNone);
  EXPECT_EQ(api_.event_record(event, stream), cudaSuccess);
  (void)api_.event_destroy(event);
}

TEST_F(FakeCudaRules, TheNullStreamIsCapturedWithThoseThatTakeTurnsWithIt) {
  auto* const stream = cuda_.training_stream(0, cudaStreamDefault);
  auto* const event = make_event();
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_.begin_graph_capture(stream);
  EXPECT_EQ(api_.stream_is_capturing(nullptr, &status), cudaErrorStreamCaptureImplicit);
  EXPECT_EQ(api_.event_record(event, nullptr), cudaErrorStreamCaptureImplicit);
  expect_violation("cudaEventRecord: the stream is being captured into a graph");
  EXPECT_FALSE(cuda_.end_graph_capture(stream));
  EXPECT_EQ(api_.stream_is_capturing(nullptr, &status), cudaSuccess);
  (void)api_.event_destroy(event);
}

/// Of a capture, and of a thread.
using CaptureModes = std::pair<cudaStreamCaptureMode, cudaStreamCaptureMode>;
constexpr std::array kCaptureModes = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                      cudaStreamCaptureModeRelaxed};

TEST_F(FakeCudaRules, ACaptureIsLostToUnsafeCallsOfThreadsThatDoNotSayThatTheyAreNone) {
  auto* const stream = cuda_.training_stream(0);
  std::set<CaptureModes> lost_here;
  std::set<CaptureModes> lost_elsewhere;
  for (const cudaStreamCaptureMode capture : kCaptureModes) {
    for (const cudaStreamCaptureMode thread : kCaptureModes) {
      const auto call = [&] {
        cudaStreamCaptureMode mode = thread;
        EXPECT_EQ(api_.thread_exchange_stream_capture_mode(&mode), cudaSuccess);
        EXPECT_EQ(mode, cudaStreamCaptureModeGlobal) << "the one before";
        void* memory = nullptr;
        const cudaError_t error = api_.malloc(&memory, 10);
        EXPECT_THAT(error, testing::AnyOf(cudaSuccess, cudaErrorStreamCaptureUnsupported));
        EXPECT_EQ(api_.free(memory), error);
        EXPECT_EQ(api_.get_last_error(), error);
        EXPECT_EQ(api_.thread_exchange_stream_capture_mode(&mode), cudaSuccess);
        EXPECT_EQ(mode, thread);
      };
      cuda_.begin_graph_capture(stream, capture);
      call();
      if (!cuda_.end_graph_capture(stream)) lost_here.insert({capture, thread});
      cuda_.begin_graph_capture(stream, capture);
      std::thread(call).join();
      if (!cuda_.end_graph_capture(stream)) lost_elsewhere.insert({capture, thread});
    }
  }
  EXPECT_EQ(lost_here, (std::set<CaptureModes>{
                           {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeGlobal},
                           {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal},
                           {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal},
                           {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeThreadLocal}}));
  EXPECT_EQ(lost_elsewhere,
            (std::set<CaptureModes>{{cudaStreamCaptureModeGlobal, cudaStreamCaptureModeGlobal}}));
  EXPECT_THAT(cuda_.take_violations(),
              testing::AllOf(testing::SizeIs(10),
                             testing::Each(testing::HasSubstr("a graph is being captured"))));
  EXPECT_EQ(cuda_.allocated_bytes(), 0u);
}

TEST_F(FakeCudaRules, WhatIsEnqueuedInOtherStreamsIsNoUnsafeCallAndWhatWaitsOrMakesIs) {
  auto* const captured = cuda_.training_stream(0);
  auto* const stream = make_stream();
  auto* const event = make_event();
  void* const memory = device_memory(0, 10, 7);
  const Pages pages(kPage);
  int device = 0;
  cuda_.begin_graph_capture(captured);
  EXPECT_EQ(api_.get_device(&device), cudaSuccess);
  EXPECT_EQ(api_.set_device(0), cudaSuccess);
  EXPECT_EQ(copy(host_.data(), memory, 10, stream), cudaSuccess);
  EXPECT_EQ(batch({host_.data()}, {memory}, {10}, stream), cudaSuccess);
  EXPECT_EQ(api_.event_record(event, stream), cudaSuccess);
  EXPECT_EQ(api_.stream_wait_event(stream, event, 0), cudaSuccess);
  EXPECT_TRUE(cuda_.end_graph_capture(captured));
  cudaStream_t made_stream = nullptr;
  cudaEvent_t made_event = nullptr;
  void* made = nullptr;
  for (const auto& call : std::vector<std::function<cudaError_t()>>{
           [&] { return api_.stream_synchronize(stream); },
           [&] { return api_.event_synchronize(event); },
           [&] { return api_.stream_create_with_flags(&made_stream, 0); },
           [&] { return api_.event_create_with_flags(&made_event, 0); },
           [&] { return api_.malloc(&made, 10); },
           [&] { return api_.free(nullptr); },
           [&] { return api_.host_register(pages.data(), kPage, 0); },
           [&] { return api_.host_unregister(host_.data()); },
           [&] { return api_.host_alloc(&made, 10, 0); },
           [&] { return api_.free_host(nullptr); },
           [&] { return api_.event_destroy(event); },
           [&] { return api_.stream_destroy(stream); },
       }) {
    cuda_.begin_graph_capture(captured);
    EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
    EXPECT_FALSE(cuda_.end_graph_capture(captured));
    expect_violation("a graph is being captured");
  }
  EXPECT_EQ(api_.stream_synchronize(stream), cudaSuccess);
  EXPECT_TRUE(host_.hold(7, 0, 10));
  (void)api_.event_destroy(event);
  (void)api_.stream_destroy(stream);
}

TEST_F(FakeCudaRules, HandlesThatWereDestroyedAreViolations) {
  auto* const stream = make_stream();
  auto* const event = make_event();
  (void)api_.stream_destroy(stream);
  (void)api_.event_destroy(event);
  EXPECT_EQ(api_.stream_synchronize(stream), cudaErrorInvalidResourceHandle);
  expect_violation("cudaStreamSynchronize: the stream has been destroyed");
  EXPECT_EQ(api_.event_synchronize(event), cudaErrorInvalidResourceHandle);
  expect_violation("cudaEventSynchronize: the event has been destroyed");
  EXPECT_EQ(api_.event_destroy(nullptr), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(api_.stream_destroy(nullptr), cudaErrorInvalidResourceHandle);
}

TEST_F(FakeCudaRules, WaitingForAnEventThatDoesNotBlockIsCountedApart) {
  auto* const blocks = make_event(cudaEventBlockingSync);
  auto* const spins = make_event(cudaEventDisableTiming);
  (void)api_.event_synchronize(blocks);
  EXPECT_EQ(cuda_.counters().busy_waits, 0u);
  (void)api_.event_synchronize(spins);
  EXPECT_EQ(cuda_.counters().busy_waits, 1u);
  EXPECT_EQ(cuda_.counters().of(Call::event_synchronize), 2u);
  (void)api_.event_destroy(blocks);
  (void)api_.event_destroy(spins);
}

TEST_F(FakeCudaRules, FlagsThatDoNotExistAreRefused) {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  EXPECT_EQ(api_.stream_create_with_flags(&stream, 0x80), cudaErrorInvalidValue);
  EXPECT_EQ(api_.event_create_with_flags(&event, 0x80), cudaErrorInvalidValue);
  EXPECT_EQ(api_.event_create_with_flags(&event, cudaEventInterprocess), cudaErrorInvalidValue);
}

// --- Schedules

TEST_F(LateFakeCuda, RunsOnlyWhatSomebodyWaitsFor) {
  const auto kernel = [&](char of) {
    return [this, of](DeviceMemoryAccess&) { ran_.push_back(of); };
  };
  auto* const training = cuda_.training_stream(0);
  auto* const copies = cuda_.training_stream(0);
  auto* const other = cuda_.training_stream(0);
  auto* const event = make_event();
  cuda_.launch(other, kernel('o'));
  cuda_.launch(training, kernel('a'));
  (void)api_.event_record(event, training);
  cuda_.launch(training, kernel('b'));
  (void)api_.stream_wait_event(copies, event, 0);
  cuda_.launch(copies, kernel('c'));
  (void)api_.event_destroy(event);
  cuda_.synchronise(copies);
  EXPECT_EQ(ran_, (std::vector<char>{'a', 'c'}));
}

TEST(FakeCudaByChance, StreamsOvertakeEachOtherAndCopiesAreTornWhereNothingOrdersThem) {
  std::set<std::string> outcomes;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    CheckedFakeCuda cuda(1, Schedule::random(seed));
    const stage::CudaRuntime& api = FakeCuda::runtime();
    constexpr std::size_t kBytes = 64 << 10;
    void* const memory = cuda.device_alloc(0, kBytes);
    cuda.write(memory, all(kBytes, 1));
    void* pinned = nullptr;
    ASSERT_EQ(api.host_alloc(&pinned, kBytes, cudaHostAllocPortable), cudaSuccess);
    auto* const training = cuda.training_stream(0);
    auto* const copies = cuda.training_stream(0);
    // Both at once: what is enqueued later is not to come later for that.
    auto* const gate = cuda.training_stream(0);
    auto held = cuda.hold(gate);
    cuda.wait_for(training, gate);
    cuda.wait_for(copies, gate);
    ASSERT_EQ(api.memcpy_async(pinned, memory, kBytes, cudaMemcpyDeviceToHost, copies),
              cudaSuccess);
    cuda.launch_fill(training, memory, kBytes, std::byte{2});
    held.release();
    cuda.synchronise(training);
    cuda.synchronise(copies);
    auto* const first = static_cast<const std::byte*>(pinned);
    const auto ones = std::count(first, first + kBytes, std::byte{1});
    outcomes.insert(ones == 0 ? "after" : ones == kBytes ? "before" : "torn");
    (void)api.free_host(pinned);
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"after", "before", "torn"}));
}

TEST_F(FakeCudaRules, AHoldKeepsOneStreamAndNoOther) {
  void* const memory = device_memory(0, 10, 1);
  auto* const held = cuda_.training_stream(0);
  auto* const free = cuda_.training_stream(0);
  {
    const auto hold = cuda_.hold(held);
    cuda_.launch_fill(held, memory, 10, std::byte{2});
    cuda_.synchronise(free);
    EXPECT_FALSE(cuda_.idle(held));
    EXPECT_EQ(cuda_.read(memory, 10), all(10, 1));
  }
  cuda_.synchronise(held);
  EXPECT_EQ(cuda_.read(memory, 10), all(10, 2));
}

}  // namespace
}  // namespace ckptring::test
