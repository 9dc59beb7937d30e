// Saves of a state that is partly on devices, through both paths, with the stand-in for CUDA.
#include "os/pidfd.h"
#include "os/poll.h"
#include "save/async_save.h"
#include "save/capture.h"
#include "save/sync_save.h"
#include "support/checked_fake_cuda.h"
#include "support/failing_calls.h"
#include "support/log_lines.h"
#include "support/sample_save.h"
#include "support/temporary_directory.h"

#include <ckptring/error.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

namespace ckptring::save {
namespace {

using test::Call;
using test::CheckedFakeCuda;
using test::contents_of;
using test::noise;
using test::Road;
using test::Schedule;

constexpr std::uint64_t kBlock = 64 << 10;

CheckpointerConfig ring_of(std::uint64_t blocks) {
  CheckpointerConfig config;
  config.process_config.executable = CKPTRING_DRAIN_PATH;
  config.process_config.block_bytes = kBlock;
  config.process_config.ring_bytes = blocks * kBlock;
  return config;
}

/// A state whose tensors are on the host, device 0 and device 1 in turn, and training streams that
/// change it.
class DeviceRun {
 public:
  DeviceRun(test::FakeCuda& cuda, std::uint64_t seed)
      : cuda_(cuda),
        before_(noise({100, 400'000, 7, 5'000, 300'000, 70'000, 1, 64, 4'096}, seed)),
        on_host_(std::make_shared<test::Storages>(*before_)) {
    for (int device = 0; device < 2; ++device) streams_.push_back(cuda.training_stream(device));
    for (std::size_t i = 0; i < before_->size(); ++i) {
      const int place = static_cast<int>(i % 3) - 1;
      std::byte* memory = (*on_host_)[i].data();
      if (place != stage::kHost) {
        memory = static_cast<std::byte*>(cuda.device_alloc(place, (*before_)[i].size()));
      }
      places_.push_back({memory, (*before_)[i].size(), place});
    }
    restore();
  }

  /// Writes the values of `before` by kernels that have not run yet.
  void restore() {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].place == stage::kHost) {
        (*on_host_)[i] = (*before_)[i];
        continue;
      }
      cuda_.launch(stream(places_[i].place),
                   [from = (*before_)[i], to = places_[i].data](test::DeviceMemoryAccess& memory) {
                     std::ranges::copy(from, memory.at(to, from.size()).begin());
                   });
    }
  }
  /// The next step of training, enqueued on the devices.
  void change_devices() {
    for (const stage::Source& source : places_) {
      if (source.place == stage::kHost) continue;
      cuda_.launch_fill(stream(source.place), const_cast<std::byte*>(source.data), source.size,
                        std::byte{0xee});
    }
  }
  void change_host() {
    for (auto& storage : *on_host_) std::ranges::fill(storage, std::byte{0xdd});
  }

  [[nodiscard]] cudaStream_t stream(int device) const {
    return streams_[static_cast<std::size_t>(device)];
  }

  SaveJob job(const std::string& path, stage::DeviceAccess& devices) const {
    SaveJob job = test::job_for(path, before_);
    job.sources = places_;
    job.name_of = [](std::uint32_t source) { return "t" + std::to_string(source); };
    stage::DeviceCopies* const copies = devices.copies();
    if (copies == nullptr) throw Error(ErrorCode::device_failed, "", "", devices.why_not());
    for (int device = 0; device < 2; ++device) {
      job.devices.push_back({device, stream(device), copies->mark(device, stream(device))});
    }
    return job;
  }

  /// The file that a save of the values of `before` has to be.
  [[nodiscard]] std::string expected(const test::TemporaryDirectory& directory) const {
    SyncSave sync({}, {}, {});
    (void)sync.run(test::job_for(directory / "expected", before_));
    return contents_of(directory / "expected/checkpoint_0.pt");
  }

 private:
  test::FakeCuda& cuda_;
  std::shared_ptr<test::Storages> before_;
  std::shared_ptr<test::Storages> on_host_;
  std::vector<cudaStream_t> streams_;
  std::vector<stage::Source> places_;
};

/// A state that nobody changes: storages of these sizes, each at its place.
class StillState {
 public:
  struct Storage {
    std::uint64_t size;
    int place;
  };
  StillState(test::FakeCuda& cuda, const std::vector<Storage>& storages) {
    std::vector<std::uint64_t> sizes;
    sizes.reserve(storages.size());
    for (const Storage& storage : storages) sizes.push_back(storage.size);
    values_ = noise(sizes, 11);
    for (std::size_t i = 0; i < storages.size(); ++i) {
      const std::vector<std::byte>& value = (*values_)[i];
      const int place = storages[i].place;
      sources_.push_back({value.data(), value.size(), place});
      if (place == stage::kHost) continue;
      auto* const memory = static_cast<std::byte*>(cuda.device_alloc(place, value.size()));
      cuda.write(memory, value);
      sources_.back().data = memory;
      if (!streams_.contains(place)) streams_[place] = cuda.training_stream(place);
    }
  }

  [[nodiscard]] cudaStream_t stream(int device) const { return streams_.at(device); }

  SaveJob job(const std::string& path, stage::DeviceAccess& devices) const {
    SaveJob job = test::job_for(path, values_);
    job.sources = sources_;
    for (const auto& [device, stream] : streams_) {
      job.devices.push_back({device, stream, devices.copies()->mark(device, stream)});
    }
    return job;
  }

  /// Whether the file of a save is that of these values.
  [[nodiscard]] bool is_in(const std::string& saved) const {
    const test::TemporaryDirectory directory;
    SyncSave sync({}, {}, {});
    (void)sync.run(test::job_for(directory / "expected", values_));
    return contents_of(saved + "/checkpoint_0.pt") ==
           contents_of(directory / "expected/checkpoint_0.pt");
  }

 private:
  std::shared_ptr<test::Storages> values_;
  std::vector<stage::Source> sources_;
  std::map<int, cudaStream_t> streams_;
};

class DeviceSave : public ::testing::TestWithParam<Schedule> {
 protected:
  CheckedFakeCuda cuda_{2, GetParam()};
  DeviceRun run_{cuda_, 5};
  test::TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Schedules, DeviceSave, ::testing::ValuesIn(test::all_schedules(4)),
                         [](const auto& one) { return one.param.name(); });

TEST_P(DeviceSave, BothPathsSaveWhatTheStreamsHadDoneWhenSaveWasCalled) {
  const std::string expected = run_.expected(directory_);
  SyncSave sync({}, {}, {});
  for (int round = 0; round < 2; ++round) {
    run_.restore();
    (void)sync.run(run_.job(directory_ / "sync", sync.devices()));
    run_.change_devices();
    EXPECT_TRUE(contents_of(directory_ / "sync/checkpoint_0.pt") == expected);
  }
  for (const std::uint64_t blocks : {4, 32}) {  // of the file's 12
    AsyncSave async(ring_of(blocks), {});
    for (int round = 0; round < 3; ++round) {
      run_.restore();
      const SaveHandle save = async.submit(run_.job(directory_ / "async", async.devices()));
      save.staged.get();
      run_.change_devices();
      run_.change_host();
      save.written.get();
      EXPECT_TRUE(contents_of(directory_ / "async/checkpoint_0.pt") == expected);
    }
  }
}

TEST_P(DeviceSave, AFencedStreamMayChangeTheTensorsAtOnce) {
  const std::string expected = run_.expected(directory_);
  for (const std::uint64_t blocks : {4, 32}) {
    AsyncSave async(ring_of(blocks), {});
    for (int round = 0; round < 3; ++round) {
      run_.restore();
      const SaveHandle save = async.submit(run_.job(directory_ / "async", async.devices()));
      for (int device = 0; device < 2; ++device) save.device_fence(device, run_.stream(device));
      run_.change_devices();
      save.written.get();
      EXPECT_TRUE(contents_of(directory_ / "async/checkpoint_0.pt") == expected);
    }
  }
}

TEST_P(DeviceSave, SeveralSavesInFlightEachHaveTheirOwnValues) {
  CheckpointerConfig config = ring_of(40);
  config.max_saves_in_flight = 3;
  const std::string expected = run_.expected(directory_);
  AsyncSave async(config, {});
  std::vector<SaveHandle> saves;
  for (int i = 0; i < 6; ++i) {
    run_.restore();
    saves.push_back(async.submit(run_.job(directory_ / std::to_string(i), async.devices())));
    for (int device = 0; device < 2; ++device) {
      saves.back().device_fence(device, run_.stream(device));
    }
    run_.change_devices();
    saves.back().staged.get();  // tensors in host memory change with the next restore
  }
  for (int i = 0; i < 6; ++i) {
    saves[static_cast<std::size_t>(i)].written.get();
    EXPECT_TRUE(contents_of(directory_ / (std::to_string(i) + "/checkpoint_0.pt")) == expected);
  }
}

TEST_P(DeviceSave, TheCallersCurrentDeviceIsLeftAsItWas) {
  for (int current = 0; current < 2; ++current) {
    cuda_.set_current_device(current);
    {
      AsyncSave async(ring_of(8), {});
      const SaveHandle save = async.submit(run_.job(directory_ / "async", async.devices()));
      for (int device = 0; device < 2; ++device) save.device_fence(device, run_.stream(device));
      EXPECT_EQ(cuda_.current_device(), current);
      save.written.get();
      async.close();
    }
    EXPECT_EQ(cuda_.current_device(), current);
    {
      SyncSave sync({}, {}, {});
      (void)sync.run(run_.job(directory_ / "sync", sync.devices()));
      EXPECT_EQ(cuda_.current_device(), current);
      cuda_.fail(Call::memcpy_batch_async, 1, cudaErrorUnknown);
      EXPECT_THROW((void)sync.run(run_.job(directory_ / "sync", sync.devices())), Error);
      EXPECT_EQ(cuda_.current_device(), current);
    }
    EXPECT_EQ(cuda_.current_device(), current);
  }
}

TEST_P(DeviceSave, TheHelperMayDieWhileCopiesAreUnderWay) {
  const std::string expected = run_.expected(directory_);
  AsyncSave async(ring_of(32), {});
  for (int round = 0; round < 3; ++round) {
    run_.restore();
    auto held = cuda_.hold(run_.stream(0));
    const SaveHandle save = async.submit(run_.job(directory_ / "async", async.devices()));
    for (int device = 0; device < 2; ++device) save.device_fence(device, run_.stream(device));
    run_.change_devices();
    async.ready();
    ASSERT_EQ(::kill(async.process_id(), SIGKILL), 0);
    held.release();
    save.written.get();
    EXPECT_TRUE(contents_of(directory_ / "async/checkpoint_0.pt") == expected);
  }
}

class DeviceSaveTest : public ::testing::Test {
 protected:
  CheckedFakeCuda cuda_{2, Schedule::random(9)};
  DeviceRun run_{cuda_, 6};
  test::TemporaryDirectory directory_;
};

TEST_F(DeviceSaveTest, AFenceWaitsNeitherForTheHostsTensorsNorForTheDisk) {
  const StillState state(cuda_, {{1'000, 0}, {100 * kBlock, stage::kHost}});
  CheckpointerConfig config = ring_of(16);
  config.process_config.stopped_timeout_secs = 20;  // a fence that waits has it killed
  AsyncSave async(config, {});
  async.ready();
  ASSERT_EQ(::kill(async.process_id(), SIGSTOP), 0);
  const SaveHandle save = async.submit(state.job(directory_ / "run", async.devices()));
  save.device_fence(0, state.stream(0));
  EXPECT_FALSE(save.staged.ready());
  ASSERT_EQ(::kill(async.process_id(), SIGCONT), 0);
  EXPECT_EQ(save.written.get().restarts, 0u);
  EXPECT_TRUE(state.is_in(directory_ / "run"));
}

TEST_F(DeviceSaveTest, AFenceOnADeviceThatIsNotReadDoesNothing) {
  const StillState state(cuda_, {{300'000, 1}});
  AsyncSave async(ring_of(8), {});
  const SaveHandle save = async.submit(state.job(directory_ / "run", async.devices()));
  save.device_fence(0, run_.stream(0));
  save.written.get();
  save.device_fence(0, run_.stream(0));
  EXPECT_EQ(cuda_.counters().of(Call::stream_create_with_flags), 1u);  // on the other one
}

TEST_F(DeviceSaveTest, AHandleThatOutlivesItsCheckpointerMayEndInAForkedChild) {
  const StillState state(cuda_, {{300'000, 1}});
  std::optional<AsyncSave> async(std::in_place, ring_of(8), RankInfo{});
  SaveHandle save = async->submit(state.job(directory_ / "run", async->devices()));
  save.written.get();
  async.reset();
  const ::pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(20);  // instead of waiting for threads that are not here
    bool refused = false;
    try {
      save.device_fence(1, state.stream(1));
    } catch (const Error& error) {
      refused = error.code() == ErrorCode::wrong_process;
    }
    save = {};
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  save.device_fence(1, state.stream(1));
}

TEST_F(DeviceSaveTest, ARingIsRegisteredOnceAndSavesWaitForNoDevice) {
  AsyncSave async(ring_of(32), {});
  const auto save = [&] {
    const SaveHandle handle = async.submit(run_.job(directory_ / "run", async.devices()));
    for (int device = 0; device < 2; ++device) handle.device_fence(device, run_.stream(device));
    handle.written.get();
  };
  save();
  EXPECT_EQ(cuda_.counters().registered_bytes, 32 * kBlock);
  cuda_.reset_counters();
  for (int i = 0; i < 5; ++i) save();
  const auto counters = cuda_.counters();
  EXPECT_EQ(counters.registrations, 0u);
  EXPECT_EQ(counters.device_synchronisations, 0u);
  EXPECT_EQ(counters.of(Call::stream_synchronize), 0u);
  EXPECT_EQ(counters.pageable_copies, 0u);
  EXPECT_EQ(counters.busy_waits, 0u);
  EXPECT_EQ(counters.of(Call::stream_create_with_flags), 0u);
  async.close();
  EXPECT_EQ(cuda_.pinned_bytes(), 0u);
}

TEST_F(DeviceSaveTest, ALargerStateGetsALargerRingWhichIsRegisteredInItsTurn) {
  CheckpointerConfig config = ring_of(0);
  AsyncSave async(config, {});
  async.submit(test::job_for(directory_ / "host", noise({100}, 1))).written.get();
  EXPECT_EQ(cuda_.counters().registrations, 0u);  // nobody asked for a device so far
  const std::string expected = run_.expected(directory_);
  async.submit(run_.job(directory_ / "run", async.devices())).written.get();
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt") == expected);
  EXPECT_GT(cuda_.pinned_bytes(), 0u);
}

TEST_F(DeviceSaveTest, WhereNothingCanBeRegisteredAWindowDoes) {
  cuda_.limit_registration(1 << 20);
  const std::string expected = run_.expected(directory_);
  CheckpointerConfig config = ring_of(1'000);
  AsyncSave async(config, {});
  for (int i = 0; i < 2; ++i) {
    async.submit(run_.job(directory_ / "run", async.devices())).written.get();
    EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt") == expected);
  }
  EXPECT_EQ(cuda_.counters().pageable_copies, 0u);
}

/// What a save's futures carry.
struct Carried {
  std::string staged;
  std::string written;
};

std::string words_of(const std::exception_ptr& error) {
  if (!error) return "";
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& failure) {
    return failure.what();
  }
}

TEST_F(DeviceSaveTest, AFailedCopyFailsItsSaveByNameAndNotTheNextOne) {
  AsyncSave async(ring_of(32), {});
  async.submit(run_.job(directory_ / "run", async.devices())).written.get();
  cuda_.fail(Call::memcpy_batch_async, 3, cudaErrorInvalidValue);  // the first two capture
  const SaveHandle failed = async.submit(run_.job(directory_ / "run", async.devices()));
  for (int device = 0; device < 2; ++device) failed.device_fence(device, run_.stream(device));
  for (const std::string& words :
       {words_of(failed.staged.error()), words_of(failed.written.error())}) {
    EXPECT_THAT(words, ::testing::AllOf(::testing::ContainsRegex("stage keys t[0-9] to t[0-9]"),
                                        ::testing::HasSubstr("copy from device "),
                                        ::testing::HasSubstr("(stream 0x"),
                                        ::testing::HasSubstr("cudaErrorInvalidValue: ")));
  }
  const std::string expected = run_.expected(directory_);
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt") == expected);  // of the first save
  std::filesystem::remove_all(directory_ / "run");
  async.submit(run_.job(directory_ / "run", async.devices())).written.get();
  EXPECT_TRUE(contents_of(directory_ / "run/checkpoint_0.pt") == expected);
}

TEST_F(DeviceSaveTest, ABrokenDeviceFailsSavesThatNeedItAndNoOthers) {
  AsyncSave async(ring_of(32), {});
  async.submit(run_.job(directory_ / "run", async.devices())).written.get();
  cuda_.fault_copy(1);
  const SaveHandle failed = async.submit(run_.job(directory_ / "run", async.devices()));
  EXPECT_THAT(words_of(failed.written.error()), ::testing::HasSubstr("cudaErrorIllegalAddress: "));
  const auto on_host = noise({300'000}, 3);
  async.submit(test::job_for(directory_ / "host", on_host)).written.get();
  SyncSave sync({}, {}, {});
  (void)sync.run(test::job_for(directory_ / "sync", on_host));
  EXPECT_TRUE(contents_of(directory_ / "host/checkpoint_0.pt") ==
              contents_of(directory_ / "sync/checkpoint_0.pt"));
}

/// Lets a save end, whatever became of it. Returns why it failed, or empty words.
std::string save_and_fence(AsyncSave& async, const DeviceRun& run, const std::string& path) {
  try {
    const SaveHandle save = async.submit(run.job(path, async.devices()));
    for (int device = 0; device < 2; ++device) save.device_fence(device, run.stream(device));
    save.written.get();
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device_failed) << error.what();
    const auto unwritten =
        async.wait_written(std::chrono::steady_clock::now() + std::chrono::seconds(60));
    EXPECT_TRUE(unwritten.empty() || unwritten.front().error) << "a save does not end";
    return error.what();
  }
}

TEST(DeviceSaveFailures, AnyCallOfASaveMayFailAndTheNextSaveIsWhole) {
  unsigned failed = 0;
  test::FailedCalls met;
  for (const Road road : test::kRoads) {
    CheckpointerConfig config = ring_of(road == Road::window ? 1'000 : 8);
    config.process_config.prefault = road != Road::window;
    for (std::size_t call = 0; call < test::kCalls; ++call) {
      for (unsigned nth = 1; nth < 60; nth += 1 + nth / (road == Road::direct ? 6 : 2)) {
        CheckedFakeCuda cuda(2, Schedule::random(nth));
        const test::TemporaryDirectory directory;
        DeviceRun run(cuda, 7);
        const std::string expected = run.expected(directory);
        const auto which = static_cast<Call>(call);
        if (road == Road::window) cuda.limit_registration(1 << 20);  // windows, but not the ring
        auto async = std::make_unique<AsyncSave>(config, RankInfo{});
        const std::string file = directory / "run/checkpoint_0.pt";
        fail_on(road, cuda, which, nth);
        const std::string words = save_and_fence(*async, run, directory / "run");
        if (words.empty()) {
          EXPECT_TRUE(contents_of(file) == expected);
        } else {
          ++failed;
          EXPECT_THAT(words, test::has_words_of_unknown(which));
        }
        if (cuda.counters().of(which) >= nth) {
          if (fails_yet(road, cuda)) (void)save_and_fence(*async, run, directory / "run");
          std::filesystem::remove_all(directory / "run");
          EXPECT_EQ(save_and_fence(*async, run, directory / "run"), "")
              << "after " << name(which) << " " << nth << ": " << words;
          EXPECT_TRUE(contents_of(file) == expected);
        }
        async.reset();
        if (cuda.counters().of(which) < nth) break;
        met.add(which);
      }
    }
  }
  EXPECT_GE(failed, 10u);
  met.expect_all_but({});
}

TEST(DeviceSaveContexts, AreMadeOnTheDevicesOfTheStateOnly) {
  for (const bool registered : {true, false}) {
    CheckedFakeCuda cuda(3, Schedule::random(4));
    cuda.set_current_device(1);
    if (!registered) cuda.limit_registration(1 << 20);
    const StillState state(cuda, {{1'000, 1}, {8 * kBlock, 1}, {300, stage::kHost}, {70'000, 1}});
    const test::TemporaryDirectory directory;
    for (const std::uint64_t blocks : {4, 1'000}) {
      CheckpointerConfig config = ring_of(blocks);
      config.staging_config.copy_threads = 3;
      AsyncSave async(config, {});
      for (int round = 0; round < 2; ++round) {
        const SaveHandle save = async.submit(state.job(directory / "async", async.devices()));
        save.device_fence(1, state.stream(1));
        save.written.get();
      }
      EXPECT_TRUE(state.is_in(directory / "async"));
      async.close();
    }
    {
      SyncSave sync({}, {}, {});
      (void)sync.run(state.job(directory / "sync", sync.devices()));
      EXPECT_TRUE(state.is_in(directory / "sync"));
    }
    EXPECT_THAT(cuda.contexts(), ::testing::ElementsAre(::testing::Pair(1, "the training")));
    EXPECT_EQ(cuda.current_device(), 1);
  }
}

TEST(BusyDevice, LongerThanTheStallTimeoutCostsNeitherTheProcessNorTheSave) {
  for (const std::uint64_t blocks : {4, 32}) {
    CheckedFakeCuda cuda(2, Schedule::eager());
    const test::TemporaryDirectory directory;
    DeviceRun run(cuda, 5);
    const std::string expected = run.expected(directory);
    const test::LogLines log;
    CheckpointerConfig config = ring_of(blocks);
    config.process_config.stall_timeout_secs = 1;
    AsyncSave async(config, {});
    async.ready();
    const int helper = async.process_id();
    auto held = cuda.hold(run.stream(0));
    const SaveHandle save = async.submit(run.job(directory / "run", async.devices()));
    EXPECT_FALSE(save.written.wait_for(std::chrono::seconds(3)));
    held.release();
    EXPECT_EQ(save.written.get().restarts, 0u);
    EXPECT_EQ(async.process_id(), helper);
    EXPECT_TRUE(contents_of(directory / "run/checkpoint_0.pt") == expected);
    const auto told = log.with("nothing was staged for ");
    ASSERT_EQ(told.size(), 1u);
    EXPECT_EQ(told.front().level, LogLevel::warn);
    EXPECT_THAT(told.front().text, ::testing::HasSubstr(": copy from device 0 (stream 0x"));
  }
}

class CapturedMemory : public ::testing::Test {
 protected:
  std::shared_ptr<CaptureMemory> lease(std::uint64_t bytes) { return pool_->lease(0, bytes); }

  CheckedFakeCuda cuda_{1, Schedule::random(1)};
  stage::DeviceAccess devices_{base::LogContext{}};
  std::shared_ptr<CapturePool> pool_ = std::make_shared<CapturePool>(devices_);
};

TEST_F(CapturedMemory, IsTheSmallestUnusedOneThatFits) {
  std::vector<std::shared_ptr<CaptureMemory>> made{lease(100), lease(1'000), lease(500)};
  const std::byte* const small = made[0]->data();
  const std::byte* const large = made[1]->data();
  const std::byte* const middle = made[2]->data();
  made.clear();
  EXPECT_EQ(lease(400)->data(), middle);
  EXPECT_EQ(lease(600)->data(), large);
  EXPECT_EQ(lease(100)->data(), small);
  EXPECT_EQ(cuda_.counters().of(Call::malloc), 3u);
  EXPECT_EQ(cuda_.counters().of(Call::free), 0u);
}

TEST_F(CapturedMemory, ThatHasToGrowIsFreedByNobodyAndGrowsSeldom) {
  for (std::uint64_t bytes = 1'000; bytes <= 10'000; bytes += 10) (void)lease(bytes);
  EXPECT_EQ(cuda_.counters().of(Call::free), 0u);
  EXPECT_LE(cuda_.counters().of(Call::malloc), 5u);
  EXPECT_LE(cuda_.allocated_bytes(), 4 * 10'000u);
  pool_->release_smaller(0, 10'000);
  EXPECT_LE(cuda_.allocated_bytes(), 2 * 10'000u);
  cuda_.reset_counters();
  (void)lease(10'000);
  EXPECT_EQ(cuda_.counters().of(Call::malloc), 0u);
}

TEST_F(CapturedMemory, ThatHasBecomeTooSmallGoesWhereTheDeviceHasNoOther) {
  cuda_.limit_allocated_bytes(10'000);
  (void)lease(6'000);
  (void)lease(9'000);
  EXPECT_EQ(cuda_.allocated_bytes(), 9'000u);
}

TEST_F(DeviceSaveTest, CapturedMemoryThatGrowsHoldsNoDeviceAndIsFreedByPrepare) {
  const StillState small(cuda_, {{1'000, 0}});
  const StillState large(cuda_, {{1'000, 0}, {3'000, 0}});
  AsyncSave async(ring_of(8), {});
  async.submit(small.job(directory_ / "small", async.devices())).written.get();
  cuda_.reset_counters();
  async.submit(large.job(directory_ / "large", async.devices())).written.get();
  EXPECT_EQ(cuda_.counters().of(Call::malloc), 1u);
  EXPECT_EQ(cuda_.counters().device_synchronisations, 0u);
  EXPECT_TRUE(large.is_in(directory_ / "large"));
  (void)async.prepare(large.job(directory_ / "large", async.devices()));
  EXPECT_EQ(cuda_.counters().of(Call::free), 1u);
  EXPECT_EQ(cuda_.counters().of(Call::malloc), 1u);
}

/// A thread that captures a CUDA graph, as libtorch does, from a stream that no save has to do
/// with.
class CapturingThread {
 public:
  explicit CapturingThread(test::FakeCuda& cuda)
      : thread_([this, &cuda] {
          auto* const stream = cuda.training_stream(0);
          cuda.begin_graph_capture(stream, cudaStreamCaptureModeGlobal);
          begun_.set_value();
          enough_.get_future().wait();
          whole_ = cuda.end_graph_capture(stream);
        }) {
    begun_.get_future().wait();
  }
  ~CapturingThread() {
    if (thread_.joinable()) (void)ends_whole();
  }
  CapturingThread(const CapturingThread&) = delete;
  CapturingThread& operator=(const CapturingThread&) = delete;
  /// Whether there is a graph.
  [[nodiscard]] bool ends_whole() {
    enough_.set_value();
    thread_.join();
    return whole_;
  }

 private:
  std::promise<void> begun_;
  std::promise<void> enough_;
  bool whole_ = false;
  std::thread thread_;
};

TEST(GraphCapture, OfAnotherThreadSurvivesAllThatSavesDoAndTheyAreWhole) {
  for (const bool registered : {true, false}) {
    for (const std::uint64_t blocks : {4, 1'000}) {
      CheckedFakeCuda cuda(2, Schedule::random(blocks));
      if (!registered) cuda.limit_registration(1 << 20);  // where the ring is large
      const test::TemporaryDirectory directory;
      DeviceRun run(cuda, 5);
      const std::string expected = run.expected(directory);
      CapturingThread capturing(cuda);
      {
        AsyncSave async(ring_of(blocks), {});
        async.prepare(run.job(directory / "async", async.devices()));
        for (int round = 0; round < 2; ++round) {
          const SaveHandle save = async.submit(run.job(directory / "async", async.devices()));
          for (int device = 0; device < 2; ++device) save.device_fence(device, run.stream(device));
          save.written.get();
          EXPECT_TRUE(contents_of(directory / "async/checkpoint_0.pt") == expected);
        }
        SyncSave sync({}, {}, {});
        (void)sync.run(run.job(directory / "sync", sync.devices()));
        EXPECT_TRUE(contents_of(directory / "sync/checkpoint_0.pt") == expected);
      }
      EXPECT_TRUE(capturing.ends_whole());
      EXPECT_EQ(cuda.pinned_bytes(), 0u);
    }
  }
}

TEST(GraphCapture, OfTheCallersThreadSurvivesASaveFromItsOtherStreams) {
  CheckedFakeCuda cuda(2, Schedule::random(1));
  const test::TemporaryDirectory directory;
  DeviceRun run(cuda, 5);
  const std::string expected = run.expected(directory);
  auto* const captured = cuda.training_stream(0);
  cuda.begin_graph_capture(captured);
  AsyncSave async(ring_of(32), {});
  const SaveHandle save = async.submit(run.job(directory / "run", async.devices()));
  for (int device = 0; device < 2; ++device) save.device_fence(device, run.stream(device));
  save.written.get();
  EXPECT_TRUE(contents_of(directory / "run/checkpoint_0.pt") == expected);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  EXPECT_EQ(test::FakeCuda::runtime().thread_exchange_stream_capture_mode(&mode), cudaSuccess);
  EXPECT_EQ(mode, cudaStreamCaptureModeGlobal) << "the caller's mode is left as it was";
  EXPECT_TRUE(cuda.end_graph_capture(captured));
}

std::set<std::string> names_in(const test::TemporaryDirectory& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path())) {
    names.insert(std::filesystem::relative(entry.path(), directory.path()).string());
  }
  return names;
}

template <class Condition>
bool comes_true(const Condition& condition) {
  for (int i = 0; i < 3'000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

/// Ends a checkpointer while a device hangs, and then lets the device go on. In a process of its
/// own: what is left behind stays until that ends.
[[noreturn]] void end_while_a_device_hangs(bool by_close, std::uint64_t blocks) {
  {
    // Not given back, and so not looked at in the end.
    test::FakeCuda& cuda = *new test::FakeCuda(2, Schedule::eager());
    const test::TemporaryDirectory directory;
    DeviceRun run(cuda, 5);
    const auto on_host = noise({1'000}, 3);
    CheckpointerConfig config = ring_of(blocks);
    config.max_saves_in_flight = 2;
    config.process_config.subprocess_shutdown_timeout_secs = 0.5;
    auto async = std::make_unique<AsyncSave>(config, RankInfo{});
    async->submit(run.job(directory / "first", async->devices())).written.get();
    const os::UniqueFd helper = os::open_pidfd(async->process_id());
    const std::size_t pinned = cuda.pinned_bytes();
    EXPECT_GT(pinned, 0u);

    auto held = cuda.hold(run.stream(0));
    SaveJob job = run.job(directory / "second", async->devices());
    const auto tensors = std::make_shared<int>();
    job.keep_alive = tensors;
    const std::array saves{async->submit(std::move(job)),
                           async->submit(test::job_for(directory / "third", on_host))};
    std::jthread training([&] {  // holds the host where the ring is small
      for (int device = 0; device < 2; ++device) saves[0].device_fence(device, run.stream(device));
    });
    const auto began = std::chrono::steady_clock::now();
    if (by_close) {
      async->close();
    } else {
      async.reset();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(40));
    for (const SaveHandle& save : saves) {
      EXPECT_TRUE(save.staged.ready());
      EXPECT_TRUE(save.written.ready());
      for (const std::string& words :
           {words_of(save.staged.error()), words_of(save.written.error())}) {
        EXPECT_THAT(words, ::testing::AllOf(::testing::HasSubstr("copy from device 0 (stream 0x"),
                                            ::testing::Not(::testing::HasSubstr("device 1")),
                                            ::testing::HasSubstr("shutdown_timeout_secs")));
      }
    }
    training.join();
    async.reset();
    std::array<os::Waitable, 1> gone{os::Waitable{helper.get()}};
    EXPECT_TRUE(os::wait_any(gone, os::Deadline::after(60)));
    EXPECT_EQ(names_in(directory), (std::set<std::string>{"first", "first/checkpoint_0.pt"}));

    // The device comes to it after all, and finds everything where it was.
    EXPECT_EQ(cuda.pinned_bytes(), pinned);
    EXPECT_GT(tensors.use_count(), 1);
    held.release();
    EXPECT_TRUE(comes_true([&] { return tensors.use_count() == 1; }));
    EXPECT_EQ(cuda.pinned_bytes(), pinned);
    EXPECT_THAT(cuda.take_violations(), ::testing::IsEmpty());
    EXPECT_EQ(names_in(directory), (std::set<std::string>{"first", "first/checkpoint_0.pt"}));
  }
  (void)std::fflush(nullptr);
  std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
}

TEST(HangingDevice, DoesNotHoldCloseWhichLeavesBehindWhatTheDeviceMayWriteTo) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(end_while_a_device_hangs(true, 32), ::testing::ExitedWithCode(0),
              ::testing::Not(::testing::HasSubstr("Sanitizer")));
}

TEST(HangingDevice, DoesNotHoldTheDestructorOfACheckpointerWhoseRingIsSmall) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(end_while_a_device_hangs(false, 4), ::testing::ExitedWithCode(0),
              ::testing::Not(::testing::HasSubstr("Sanitizer")));
}

/// The save fails while its device hangs, and only then the checkpointer ends.
[[noreturn]] void close_after_a_failure_while_a_device_hangs() {
  {
    test::FakeCuda& cuda = *new test::FakeCuda(2, Schedule::eager());  // as above
    const test::TemporaryDirectory directory;
    DeviceRun run(cuda, 5);
    CheckpointerConfig config = ring_of(32);
    config.process_config.max_restarts = 0;
    config.process_config.subprocess_shutdown_timeout_secs = 0.5;
    AsyncSave async(config, RankInfo{});
    async.submit(run.job(directory / "first", async.devices())).written.get();

    auto held = cuda.hold(run.stream(0));
    const SaveHandle save = async.submit(run.job(directory / "second", async.devices()));
    while (!save.written.ready()) {
      if (const int helper = async.process_id(); helper > 0) (void)::kill(helper, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_FALSE(save.staged.ready());  // the device still writes to its blocks
    async.close();
    if (!save.staged.ready()) std::_Exit(2);  // it would never be
    EXPECT_THAT(words_of(save.written.error()), ::testing::HasSubstr("terminated by signal 9"));
    EXPECT_EQ(words_of(save.staged.error()), words_of(save.written.error()));
    save.device_fence(1, run.stream(1));
    held.release();
    EXPECT_THAT(cuda.take_violations(), ::testing::IsEmpty());
  }
  (void)std::fflush(nullptr);
  std::_Exit(::testing::Test::HasFailure() ? 1 : 0);
}

TEST(HangingDevice, OfASaveThatHasFailedHoldsNeitherCloseNorStaged) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(close_after_a_failure_while_a_device_hangs(), ::testing::ExitedWithCode(0),
              ::testing::Not(::testing::HasSubstr("Sanitizer")));
}

/// The trainer's part, in a process of its own.
[[noreturn]] void train_until_killed(const std::string& directory, int to_parent) {
  CheckedFakeCuda cuda(2, Schedule::late());
  DeviceRun run(cuda, 8);
  AsyncSave async(ring_of(32), {});
  async.submit(run.job(directory + "/first", async.devices())).written.get();
  [[maybe_unused]] const auto held = cuda.hold(run.stream(0));
  const SaveHandle save = async.submit(run.job(directory + "/second", async.devices()));
  save.device_fence(0, run.stream(0));  // every copy is enqueued
  const int helper = async.process_id();
  if (::write(to_parent, &helper, sizeof helper) != sizeof helper) ::_exit(1);
  for (;;) ::pause();
}

TEST(DeviceSaveTrainer, ThatDiesWithCopiesUnderWayLeavesTheEarlierSaveAndNothingElse) {
  const test::TemporaryDirectory directory;
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const ::pid_t trainer = ::fork();
  ASSERT_GE(trainer, 0);
  if (trainer == 0) train_until_killed(directory.path(), ends[1]);
  ASSERT_EQ(::close(ends[1]), 0);
  int helper = 0;
  ASSERT_EQ(::read(ends[0], &helper, sizeof helper), static_cast<::ssize_t>(sizeof helper));
  const os::UniqueFd pidfd = os::open_pidfd(helper);
  ASSERT_EQ(::kill(trainer, SIGKILL), 0);
  ASSERT_EQ(::waitpid(trainer, nullptr, 0), trainer);
  std::array<os::Waitable, 1> gone{os::Waitable{pidfd.get()}};
  ASSERT_TRUE(os::wait_any(gone, os::Deadline::after(60)));
  ASSERT_EQ(::close(ends[0]), 0);
  EXPECT_EQ(names_in(directory), (std::set<std::string>{"first", "first/checkpoint_0.pt"}));
}

}  // namespace
}  // namespace ckptring::save
