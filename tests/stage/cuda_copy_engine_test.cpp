#include "os/own_thread.h"
#include "stage/cuda_device_copies.h"
#include "support/checked_fake_cuda.h"
#include "support/failing_calls.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace ckptring::stage::test {
namespace {

using ckptring::test::Call;
using ckptring::test::CheckedFakeCuda;
using ckptring::test::CudaCounters;
using ckptring::test::FakeCuda;
using ckptring::test::Road;
using ckptring::test::Schedule;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kPage = 4096;

/// Page-aligned host memory.
class HostMemory {
 public:
  explicit HostMemory(std::size_t pages)
      : bytes_(pages * kPage),
        memory_(
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~HostMemory() { (void)::munmap(memory_, bytes_); }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(memory_), bytes_};
  }
  [[nodiscard]] std::byte* at(std::size_t offset) const { return bytes().data() + offset; }

 private:
  std::size_t bytes_;
  void* memory_;
};

Bytes filled(std::size_t size, int value) { return Bytes(size, static_cast<std::byte>(value)); }

/// How a batch ended.
class Ended {
 public:
  [[nodiscard]] CopiesEnded tell() {
    return [promise = promise_](const std::exception_ptr& failure) { promise->set_value(failure); };
  }
  /// Waits. A second call of `ended` would have thrown.
  std::exception_ptr failure() { return promise_->get_future().get(); }
  std::string words() {
    const std::exception_ptr why = failure();
    if (!why) return "";
    try {
      std::rethrow_exception(why);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
      return error.what();
    }
  }

 private:
  std::shared_ptr<std::promise<std::exception_ptr>> promise_ =
      std::make_shared<std::promise<std::exception_ptr>>();
};

class CudaCopies {
 public:
  explicit CudaCopies(int devices, Schedule schedule) : cuda(devices, schedule) {}

  std::byte* device_memory(const Bytes& contents, int device = 0) {
    void* const memory = cuda.device_alloc(device, contents.size());
    cuda.write(memory, contents);
    return static_cast<std::byte*>(memory);
  }
  [[nodiscard]] Bytes on_device(const std::byte* memory, std::size_t size) const {
    return cuda.read(memory, size);
  }
  std::unique_ptr<PinnedMemory> pin(std::size_t piece_bytes = 8 * kPage, int device = 0) {
    return copies.pin(host.bytes(), piece_bytes, device, nullptr);
  }

  CheckedFakeCuda cuda;  // before whatever uses it
  HostMemory host{64};
  std::unique_ptr<CudaDeviceCopies> owned =
      std::make_unique<CudaDeviceCopies>(FakeCuda::runtime(), base::LogContext{});
  CudaDeviceCopies& copies = *owned;
};

class CudaCopyEngineSchedules : public ::testing::TestWithParam<Schedule> {
 protected:
  CudaCopies all_{2, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Schedules, CudaCopyEngineSchedules,
                         ::testing::ValuesIn(ckptring::test::all_schedules()),
                         [](const auto& one) { return one.param.name(); });

TEST_P(CudaCopyEngineSchedules, CopiesWhatTheStreamHadDoneAtThePointAndNothingLater) {
  const auto pinned = all_.pin();
  auto* const training = all_.cuda.training_stream(0);
  std::byte* const memory = all_.device_memory(filled(10'000, 1));
  for (int step = 2; step < 10; ++step) {
    all_.cuda.launch_fill(training, memory, 10'000, static_cast<std::byte>(step));
    const auto point = all_.copies.mark(0, training);
    DeviceCopyEngine& engine = all_.copies.to_host(0);
    engine.copy_after(*point);
    Ended ended;
    engine.copy(std::vector<Copy>{{all_.host.at(0), memory, 10'000, 0}}, ended.tell());
    engine.fence(training);
    all_.cuda.launch_fill(training, memory, 10'000, std::byte{99});  // the next step
    ASSERT_EQ(ended.words(), "");
    ASSERT_TRUE(std::ranges::equal(all_.host.bytes().first(10'000), filled(10'000, step)));
  }
}

TEST_P(CudaCopyEngineSchedules, CopiesToADeviceAreThereForWhoeverIsFenced) {
  const auto pinned = all_.pin();
  auto* const training = all_.cuda.training_stream(1);
  std::byte* const memory = all_.device_memory(filled(5'000, 1), 1);
  std::byte* const copy = all_.device_memory(filled(5'000, 1), 1);
  all_.cuda.launch_fill(training, memory, 5'000, std::byte{2});  // still uses what is overwritten
  DeviceCopyEngine& engine = all_.copies.to_device(1);
  engine.copy_after(*all_.copies.mark(1, training));
  std::ranges::fill(all_.host.bytes(), std::byte{3});
  Ended ended;
  engine.copy(std::vector<Copy>{{memory, all_.host.at(100), 5'000, 0}}, ended.tell());
  engine.fence(training);
  all_.cuda.copy(training, copy, memory, 5'000);
  all_.cuda.synchronise(training);
  EXPECT_EQ(all_.on_device(copy, 5'000), filled(5'000, 3));
  EXPECT_EQ(ended.words(), "");
}

TEST_P(CudaCopyEngineSchedules, TheDefaultStreamIsThatOfTheDeviceThoughAnotherOneIsCurrent) {
  const auto pinned = all_.pin();
  auto* const training = all_.cuda.null_stream(1);
  std::byte* const memory = all_.device_memory(filled(10'000, 1), 1);
  for (int step = 2; step < 6; ++step) {
    all_.cuda.launch_fill(training, memory, 10'000, static_cast<std::byte>(step));
    DeviceCopyEngine& engine = all_.copies.to_host(1);
    engine.copy_after(*all_.copies.mark(1, nullptr));
    Ended ended;
    engine.copy(std::vector<Copy>{{all_.host.at(0), memory, 10'000, 0}}, ended.tell());
    engine.fence(nullptr);
    all_.cuda.launch_fill(training, memory, 10'000, std::byte{99});
    ASSERT_EQ(ended.words(), "");
    ASSERT_TRUE(std::ranges::equal(all_.host.bytes().first(10'000), filled(10'000, step)));
  }
}

TEST_P(CudaCopyEngineSchedules, ManySmallCopiesAreOneCallAndSmallPiecesOfMemoryNoObstacle) {
  const auto pinned = all_.pin(2 * kPage);
  std::mt19937_64 random(7);
  std::vector<Bytes> contents;
  std::vector<Copy> copies;
  std::byte* to = all_.host.at(0);
  for (std::uint32_t i = 0; i < 100; ++i) {
    contents.push_back(filled(1 + random() % 2'000, static_cast<int>(i)));
    copies.push_back({to, all_.device_memory(contents.back()), contents.back().size(), i});
    to += contents.back().size();
  }
  Ended ended;
  all_.copies.to_host(0).copy(copies, ended.tell());
  ASSERT_EQ(ended.words(), "");
  for (std::uint32_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(std::ranges::equal(contents[i], std::span(copies[i].to, contents[i].size())));
  }
  const auto counters = all_.cuda.counters();
  EXPECT_EQ(counters.of(Call::memcpy_batch_async), 1u);
  EXPECT_EQ(counters.of(Call::memcpy_async), 0u);
  EXPECT_EQ(counters.straddling_copies, 0u);
  EXPECT_EQ(counters.pageable_copies, 0u);
}

TEST_P(CudaCopyEngineSchedules, MemoryThatCannotBePinnedIsReachedThroughAWindow) {
  all_.cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
  // The only piece, whoever asks for it first: the thread in the background or the copy.
  const auto pinned = all_.copies.pin(all_.host.bytes().first(8 * kPage), 8 * kPage, 0, nullptr);
  std::byte* const memory = all_.device_memory(filled(20 * kPage, 7));
  Ended to_host;
  all_.copies.to_host(0).copy(std::vector<Copy>{{all_.host.at(0), memory, 20 * kPage, 0}},
                              to_host.tell());
  ASSERT_EQ(to_host.words(), "");
  EXPECT_TRUE(std::ranges::equal(all_.host.bytes().first(20 * kPage), filled(20 * kPage, 7)));
  std::ranges::fill(all_.host.bytes(), std::byte{8});
  Ended to_device;
  all_.copies.to_device(0).copy(std::vector<Copy>{{memory, all_.host.at(0), 20 * kPage, 0}},
                                to_device.tell());
  ASSERT_EQ(to_device.words(), "");
  EXPECT_EQ(all_.on_device(memory, 20 * kPage), filled(20 * kPage, 8));
  EXPECT_EQ(all_.cuda.counters().pageable_copies, 0u);
}

class CudaCopyEngineTest : public ::testing::Test {
 protected:
  std::string copy_to_host(const std::byte* from, std::size_t size) {
    Ended ended;
    all_.copies.to_host(0).copy(std::vector<Copy>{{all_.host.at(0), from, size, 0}}, ended.tell());
    return ended.words();
  }
  CudaCopies all_{1, Schedule::random(3)};
};

TEST_F(CudaCopyEngineTest, ADriverWithoutBatchesGetsOneCopyAfterTheOther) {
  const auto pinned = all_.pin();
  all_.cuda.fail(Call::memcpy_batch_async, 1, cudaErrorNotSupported);
  std::byte* const memory = all_.device_memory(filled(1'000, 5));
  for (int round = 0; round < 2; ++round) {
    std::vector<Copy> copies;
    for (std::size_t i = 0; i < 10; ++i) {
      copies.push_back({all_.host.at(2 * i * 100), memory + i * 100, 100, 0});
    }
    Ended ended;
    all_.copies.to_host(0).copy(copies, ended.tell());
    ASSERT_EQ(ended.words(), "");
  }
  EXPECT_EQ(all_.cuda.counters().of(Call::memcpy_batch_async), 1u);  // asked once
  EXPECT_EQ(all_.cuda.counters().copies, 20u);
  EXPECT_TRUE(std::ranges::equal(all_.host.bytes().subspan(1'800, 100), filled(100, 5)));
}

TEST_F(CudaCopyEngineTest, AWindowThatCannotBeHadIsToldWithDeviceAndStream) {
  all_.cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
  all_.cuda.fail(Call::host_alloc, 1, cudaErrorMemoryAllocation);
  const auto pinned = all_.copies.pin(all_.host.bytes(), 64 * kPage, 0, nullptr);
  std::byte* const memory = all_.device_memory(filled(1'000, 5));
  EXPECT_THAT(copy_to_host(memory, 1'000),
              ::testing::MatchesRegex("copy from device 0 \\(stream 0x[0-9a-f]+\\), allocate a "
                                      "window of pinned memory: cudaErrorMemoryAllocation: .*"));
  EXPECT_EQ(copy_to_host(memory, 1'000), "");
}

TEST_F(CudaCopyEngineTest, EachPieceOfMemoryIsRegisteredOnceAndGivenBack) {
  std::byte* const memory = all_.device_memory(filled(60 * kPage, 5));
  {
    const auto pinned = all_.pin(4 * kPage);
    for (int round = 0; round < 5; ++round) ASSERT_EQ(copy_to_host(memory, 60 * kPage), "");
    EXPECT_LE(all_.cuda.counters().registrations, 16u);
    EXPECT_GE(all_.cuda.counters().registrations, 15u);
  }
  EXPECT_EQ(all_.cuda.counters().of(Call::host_unregister), all_.cuda.counters().registrations);
  EXPECT_EQ(all_.cuda.pinned_bytes(), 0u);
}

TEST_F(CudaCopyEngineTest, MemoryIsRegisteredInTheBackgroundOnceItIsPopulated) {
  std::promise<void> populated;
  std::promise<void> all_asked;
  const auto pinned = all_.copies.pin(
      all_.host.bytes(), 32 * kPage, 0,
      [&, ready = populated.get_future().share()](const std::stop_token&, std::uint64_t bytes) {
        ready.wait();
        if (bytes == 64 * kPage) all_asked.set_value();
      });
  EXPECT_EQ(all_.cuda.counters().registrations, 0u);
  populated.set_value();
  all_asked.get_future().wait();
  EXPECT_GE(all_.cuda.counters().registrations, 1u);
}

/// The driver would bring them in, and hold up every launch meanwhile.
TEST_F(CudaCopyEngineTest, PagesAreThereBeforeMemoryIsRegistered) {
  std::byte* const memory = all_.device_memory(filled(kPage, 5));
  const auto pinned = all_.copies.pin(all_.host.bytes().first(32 * kPage), 16 * kPage, 0,
                                      [](const std::stop_token& stop, std::uint64_t) {
                                        while (!stop.stop_requested()) std::this_thread::yield();
                                      });
  ASSERT_EQ(copy_to_host(memory, kPage), "");
  EXPECT_EQ(all_.cuda.counters().registrations, 1u);
  EXPECT_EQ(all_.cuda.counters().unpopulated_registrations, 0u);
  {
    const auto in_background =
        all_.copies.pin(all_.host.bytes().subspan(32 * kPage), 16 * kPage, 0, {});
    while (all_.cuda.counters().registrations < 3) std::this_thread::yield();
  }
  EXPECT_EQ(all_.cuda.counters().unpopulated_registrations, 0u);
}

/// Whoever was to populate it may have given up.
TEST_F(CudaCopyEngineTest, PagesAreThereAlsoWhereTheWaitForThemHasEndedWithoutThem) {
  const auto pinned = all_.copies.pin(all_.host.bytes(), 16 * kPage, 0,
                                      [](const std::stop_token&, std::uint64_t) {});
  while (all_.cuda.counters().registrations < 4) std::this_thread::yield();
  EXPECT_EQ(all_.cuda.counters().unpopulated_registrations, 0u);
}

TEST_F(CudaCopyEngineTest, RegisteringInTheBackgroundLeavesTheDriverToOthersMostOfTheTime) {
  constexpr std::chrono::milliseconds kTakes{5};
  all_.cuda.let_registering_take(kTakes);
  const auto began = std::chrono::steady_clock::now();
  const auto pinned = all_.pin(8 * kPage);
  while (all_.cuda.counters().registrations < 8) std::this_thread::sleep_for(kTakes / 5);
  EXPECT_GE(std::chrono::steady_clock::now() - began, 8 * kTakes + 7 * 2 * kTakes);
}

TEST_F(CudaCopyEngineTest, WhoeverEndsRegisteringDoesNotWaitForItsPauses) {
  all_.cuda.let_registering_take(std::chrono::seconds(1));
  auto pinned = all_.pin(8 * kPage);
  while (all_.cuda.counters().registrations < 1) std::this_thread::yield();
  const auto began = std::chrono::steady_clock::now();
  pinned.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(2500));
}

TEST_F(CudaCopyEngineTest, NobodyWaitsForADeviceOrBusily) {
  const auto pinned = all_.pin();
  std::byte* const memory = all_.device_memory(filled(60 * kPage, 5));
  auto* const training = all_.cuda.training_stream(0);
  ASSERT_EQ(copy_to_host(memory, 60 * kPage), "");
  all_.cuda.reset_counters();
  for (int save = 0; save < 5; ++save) {
    all_.copies.to_host(0).copy_after(*all_.copies.mark(0, training));
    ASSERT_EQ(copy_to_host(memory, 60 * kPage), "");
    all_.copies.to_host(0).fence(training);
  }
  const auto counters = all_.cuda.counters();
  EXPECT_EQ(counters.device_synchronisations, 0u);
  EXPECT_EQ(counters.of(Call::stream_synchronize), 0u);
  EXPECT_EQ(counters.busy_waits, 0u);
  EXPECT_EQ(counters.registrations, 0u);
  EXPECT_LE(counters.of(Call::event_create_with_flags), 2u);  // used again
}

TEST_F(CudaCopyEngineTest, AFaultOfTheDeviceReachesWhoeverWaitsWithCudasOwnWords) {
  const auto pinned = all_.pin();
  std::byte* const memory = all_.device_memory(filled(1'000, 5));
  all_.cuda.fault_copy(1, cudaErrorIllegalAddress);
  EXPECT_THAT(copy_to_host(memory, 1'000), ::testing::HasSubstr("cudaErrorIllegalAddress: "));
  // The context is broken for good. Nobody waits for ever.
  EXPECT_THAT(copy_to_host(memory, 1'000), ::testing::HasSubstr("cudaErrorIllegalAddress: "));
  EXPECT_THROW(all_.copies.to_host(0).fence(all_.cuda.training_stream(0)), Error);
}

/// Whoever is told that they have ended lets go of the memory that they write to.
TEST_F(CudaCopyEngineTest, CopiesAreUnderWayAsLongAsAWaitForThemIsRefusedByADeviceThatWorks) {
  const auto pinned = all_.pin();
  std::byte* const memory = all_.device_memory(filled(1'000, 5));
  auto* const training = all_.cuda.training_stream(0);
  for (const cudaError_t refusal :
       {cudaErrorStreamCaptureUnsupported, cudaErrorMemoryAllocation, cudaErrorUnknown}) {
    all_.cuda.reset_counters();
    auto held = all_.cuda.hold(training);
    all_.cuda.fail(Call::event_synchronize, 1, cudaErrorUnknown);
    all_.cuda.fail(Call::stream_synchronize, 1, refusal);
    DeviceCopyEngine& engine = all_.copies.to_host(0);
    engine.copy_after(*all_.copies.mark(0, training));
    std::ranges::fill(all_.host.bytes(), std::byte{});
    std::promise<std::exception_ptr> told;
    auto failure = told.get_future();
    engine.copy(std::vector<Copy>{{all_.host.at(0), memory, 1'000, 0}},
                [&](const std::exception_ptr& why) { told.set_value(why); });
    while (all_.cuda.counters().of(Call::stream_synchronize) == 0) std::this_thread::yield();
    EXPECT_EQ(failure.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
    held.release();
    EXPECT_NE(failure.get(), nullptr);
    EXPECT_TRUE(std::ranges::equal(all_.host.bytes().first(1'000), filled(1'000, 5)));
    EXPECT_GE(all_.cuda.counters().of(Call::stream_synchronize), 2u);
  }
}

TEST_F(CudaCopyEngineTest, NobodyWaitsForADeviceThatBreaksWhileTheWaitIsRefused) {
  const auto pinned = all_.pin();
  std::byte* const memory = all_.device_memory(filled(1'000, 5));
  auto* const training = all_.cuda.training_stream(0);
  const auto held = all_.cuda.hold(training);
  all_.cuda.fail(Call::event_synchronize, 1, cudaErrorUnknown);
  all_.cuda.fail(Call::stream_synchronize, 1, cudaErrorStreamCaptureUnsupported);
  DeviceCopyEngine& engine = all_.copies.to_host(0);
  engine.copy_after(*all_.copies.mark(0, training));
  Ended ended;
  engine.copy(std::vector<Copy>{{all_.host.at(0), memory, 1'000, 0}}, ended.tell());
  while (all_.cuda.counters().of(Call::stream_synchronize) == 0) std::this_thread::yield();
  all_.cuda.fault_device(0);
  EXPECT_THAT(ended.words(), ::testing::HasSubstr("cudaErrorUnknown: "));
}

TEST(CudaContexts, AreMadeByNoCallOfAThreadThatHasNotChosenADevice) {
  for (const bool registered : {true, false}) {
    CudaCopies all(2, Schedule::random(2));
    std::byte* const memory = all.device_memory(filled(20 * kPage, 5), 1);
    auto* const training = all.cuda.training_stream(1);
    if (!registered) all.cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
    auto copies = std::make_unique<CudaDeviceCopies>(FakeCuda::runtime(), base::LogContext{});
    std::unique_ptr<PinnedMemory> pinned;
    std::shared_ptr<StreamPoint> point;
    const auto copy = [](DeviceCopyEngine& engine, std::byte* to, const std::byte* from) {
      Ended ended;
      engine.copy(std::vector<Copy>{{to, from, 5 * kPage, 0}}, ended.tell());
      EXPECT_EQ(ended.words(), "");
    };
    const std::vector<std::function<void()>> steps = {
        [&] { pinned = copies->pin(all.host.bytes(), 64 * kPage, 1, nullptr); },
        [&] { (void)copies->to_host(1); },
        [&] { (void)copies->to_device(1); },
        [&] { point = copies->mark(1, training); },
        [&] { copies->to_host(1).copy_after(*point); },
        [&] { copy(copies->to_host(1), all.host.at(0), memory); },
        [&] { copies->to_host(1).fence(training); },
        [&] { copies->to_device(1).copy_after(*point); },
        [&] { copy(copies->to_device(1), memory, all.host.at(0)); },
        [&] { point.reset(); },
        [&] { pinned.reset(); },
        [&] { copies.reset(); },
        [&] {
          copies = std::make_unique<CudaDeviceCopies>(FakeCuda::runtime(), base::LogContext{});
        },
        [&] { (void)copies->mark(1, training); },  // an event and no engine
        [&] { copies.reset(); },
    };
    for (std::size_t i = 0; i < steps.size(); ++i) {
      os::run_in_own_thread("test", steps[i]);
      EXPECT_THAT(all.cuda.contexts(), ::testing::ElementsAre(::testing::Key(1))) << "step " << i;
    }
  }
}

TEST(CudaContexts, AreMadeByNoCallOfAThreadOfOthersWhoseDeviceHasNone) {
  CudaCopies all(3, Schedule::eager());
  std::byte* const memory = all.device_memory(filled(4 * kPage, 5), 1);
  const auto copy_from_device_1 = [&] {
    Ended ended;
    all.copies.to_host(1).copy(std::vector<Copy>{{all.host.at(0), memory, 4 * kPage, 0}},
                               ended.tell());
    EXPECT_EQ(ended.words(), "");
    int now = -1;
    EXPECT_EQ(FakeCuda::runtime().get_device(&now), cudaSuccess);
    return now;
  };
  // Its current device is 0, which nobody has used.
  std::thread([&] { EXPECT_EQ(copy_from_device_1(), 1); }).join();
  EXPECT_THAT(all.cuda.contexts(), ::testing::ElementsAre(::testing::Key(1)));
  // One that works on a device of its own keeps it.
  std::thread([&] {
    EXPECT_EQ(FakeCuda::runtime().set_device(2), cudaSuccess);
    EXPECT_EQ(copy_from_device_1(), 2);
  }).join();
  EXPECT_THAT(all.cuda.contexts(), ::testing::ElementsAre(::testing::Key(1), ::testing::Key(2)));
}

TEST(CudaContexts, TheDeviceOfACopyIsCurrentAlsoWhereMemoryIsRegisteredForItOnAnother) {
  for (const bool registered : {true, false}) {
    CudaCopies all(2, Schedule::eager());
    std::byte* const memory = all.device_memory(filled(20 * kPage, 5), 1);
    if (!registered) all.cuda.fail(Call::host_register, 1, cudaErrorMemoryAllocation);
    // The thread in the background comes to nothing: the copy is the first to need each piece.
    const auto pinned = all.copies.pin(
        all.host.bytes(), 8 * kPage, 0, [](const std::stop_token& stop, std::uint64_t) {
          while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        });
    Ended ended;
    os::run_in_own_thread("test", [&] {
      all.copies.to_host(1).copy(std::vector<Copy>{{all.host.at(0), memory, 20 * kPage, 0}},
                                 ended.tell());
    });
    EXPECT_EQ(ended.words(), "");
    EXPECT_EQ(all.cuda.counters().registrations, registered ? 3u : 2u);
    EXPECT_EQ(all.cuda.counters().copies_elsewhere, 0u);
  }
}

/// While it lives, new threads ask for more memory than there is.
class NoMoreThreads {
 public:
  NoMoreThreads() {
    EXPECT_EQ(::pthread_getattr_default_np(&before_), 0);
    ::pthread_attr_t huge;
    EXPECT_EQ(::pthread_attr_init(&huge), 0);
    EXPECT_EQ(::pthread_attr_setstacksize(&huge, std::size_t{1} << 50), 0);
    EXPECT_EQ(::pthread_setattr_default_np(&huge), 0);
    (void)::pthread_attr_destroy(&huge);
  }
  ~NoMoreThreads() {
    EXPECT_EQ(::pthread_setattr_default_np(&before_), 0);
    (void)::pthread_attr_destroy(&before_);
  }
  NoMoreThreads(const NoMoreThreads&) = delete;
  NoMoreThreads& operator=(const NoMoreThreads&) = delete;

 private:
  ::pthread_attr_t before_{};
};

TEST_F(CudaCopyEngineTest, WithoutAThreadThereIsNoEngineAndNothingIsLeftOfIt) {
  {
    const NoMoreThreads none;
    try {
      (void)all_.copies.to_host(0);
      ADD_FAILURE() << "it was made";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::device_failed);
      EXPECT_THAT(error.what(), ::testing::StartsWith("start a thread to copy from device 0 "));
    }
  }
  const CudaCounters counters = all_.cuda.counters();
  EXPECT_EQ(counters.of(Call::stream_create_with_flags), 1u);
  EXPECT_EQ(counters.of(Call::stream_destroy), 1u);
}

TEST_F(CudaCopyEngineTest, WithoutAThreadMemoryIsRegisteredWhenACopyNeedsIt) {
  std::byte* const memory = all_.device_memory(filled(10 * kPage, 5));
  ASSERT_EQ(copy_to_host(memory, kPage), "");  // makes the engine
  std::unique_ptr<PinnedMemory> pinned;
  {
    const NoMoreThreads none;
    pinned = all_.pin(4 * kPage);
  }
  EXPECT_EQ(all_.cuda.counters().registrations, 0u);
  ASSERT_EQ(copy_to_host(memory, 10 * kPage), "");
  EXPECT_EQ(all_.cuda.counters().registrations, 3u);
  pinned.reset();
  EXPECT_EQ(all_.cuda.pinned_bytes(), CudaWindow::kBuffers * CudaWindow::kBufferBytes);
}

/// Not the one that a thread begins with: to choose a device is a call that may fail, too.
constexpr int kOther = 1;

/// Copies both ways, and all that belongs to it. Returns the words of what failed first.
std::string whole_round(CudaCopies& all, std::byte* memory, Road road = Road::direct) {
  std::string words;
  const auto note = [&](const std::string& now) {
    if (words.empty()) words = now;
  };
  const auto pinned = road == Road::window ? nullptr : all.pin(16 * kPage, kOther);
  auto* const training = all.cuda.training_stream(kOther);
  try {
    std::ranges::fill(all.host.bytes(), std::byte{});
    DeviceCopyEngine& to_host = all.copies.to_host(kOther);
    to_host.copy_after(*all.copies.mark(kOther, training));
    Ended there;
    to_host.copy(std::vector<Copy>{{all.host.at(0), memory, 20 * kPage, 0},
                                   {all.host.at(30 * kPage), memory, 20 * kPage, 0}},
                 there.tell());
    const std::string failed = there.words();
    note(failed);
    if (failed.empty()) {
      EXPECT_TRUE(std::ranges::equal(all.host.bytes().first(20 * kPage), filled(20 * kPage, 6)));
    }
    to_host.fence(training);
    DeviceCopyEngine& to_device = all.copies.to_device(kOther);
    Ended back;
    to_device.copy(std::vector<Copy>{{memory, all.host.at(0), 20 * kPage, 0}}, back.tell());
    note(back.words());
    const auto aside = all.copies.allocate(kOther, 20 * kPage);
    Ended captured;
    all.copies.within(kOther).copy(
        std::vector<Copy>{{aside->data(), memory, 7 * kPage, 0},
                          {aside->data() + 7 * kPage, memory + 7 * kPage, 13 * kPage, 0}},
        captured.tell());
    note(captured.words());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device_failed);
    note(error.what());
  }
  return words;
}

TEST(CudaCopyEngineFailures, AnyCallMayFailAndTheNextRoundWorks) {
  unsigned failed = 0;
  ckptring::test::FailedCalls met;
  for (const Road road : ckptring::test::kRoads) {
    for (std::size_t call = 0; call < ckptring::test::kCalls; ++call) {
      for (unsigned nth = 1; nth < 40; ++nth) {
        CudaCopies all(2, Schedule::random(nth));
        std::byte* const memory = all.device_memory(filled(20 * kPage, 6), kOther);
        const auto which = static_cast<Call>(call);
        fail_on(road, all.cuda, which, nth);
        const std::string words = whole_round(all, memory, road);
        const bool reached = all.cuda.counters().of(which) >= nth;
        all.cuda.write(memory, filled(20 * kPage, 6));
        if (!words.empty()) {
          ++failed;
          EXPECT_THAT(words, ckptring::test::has_words_of_unknown(which));
        }
        if (reached) {
          if (fails_yet(road, all.cuda)) (void)whole_round(all, memory, road);
          all.cuda.write(memory, filled(20 * kPage, 6));
          EXPECT_EQ(whole_round(all, memory, road), "")
              << name(which) << " " << nth << " " << words;
        }
        all.owned.reset();
        if (all.cuda.counters().of(which) < nth) break;
        met.add(which);
      }
    }
  }
  EXPECT_GE(failed, 10u);
  met.expect_all_but({Call::get_device_count});  // of whoever makes them
}

TEST(CudaCopyEngineFailures, ADeviceThatBreaksAtAnyCopyHoldsNobody) {
  for (unsigned nth = 1; nth <= 3; ++nth) {
    CudaCopies all(2, Schedule::late());
    std::byte* const memory = all.device_memory(filled(20 * kPage, 6), kOther);
    all.cuda.fault_copy(nth);
    EXPECT_THAT(whole_round(all, memory), ::testing::HasSubstr("cudaErrorIllegalAddress: "));
    EXPECT_NE(whole_round(all, memory), "");
  }
}

}  // namespace
}  // namespace ckptring::stage::test
