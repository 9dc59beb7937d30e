// The checkpoint process beside a trainer that uses CUDA, and the ring that the driver knows.
#include "gpu/gpu_test.h"
#include "support/log_lines.h"

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <gmock/gmock.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace ckptring::test {
namespace {

using GpuProcess = GpuTest;

/// How much of this process's mappings with this in their name CUDA knows as pinned.
std::uint64_t pinned_bytes_of(const std::string& name) {
  constexpr std::uintptr_t kPage = 4096;
  std::uint64_t pinned = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(name) == std::string::npos) continue;
    std::size_t dash = 0;
    const std::uintptr_t begin = std::stoull(line, &dash, 16);
    const std::uintptr_t end = std::stoull(line.substr(dash + 1), nullptr, 16);
    for (std::uintptr_t page = begin; page < end; page += kPage) {
      const bool is_pinned =
          at::detail::getCUDAHooks().isPinnedPtr(reinterpret_cast<const void*>(page));
      pinned += is_pinned ? kPage : 0;
    }
  }
  return pinned;
}

TEST_F(GpuProcess, ARingIsRegisteredOnceHoweverManySavesThereAre) {
  const LogLines log;
  const auto checkpointer = make_async_checkpointer(ring_of(32));
  const StateDict state = dict({{"w", full(7 << 20, 1, 0)}});
  for (int i = 0; i < 4; ++i) {
    checkpointer->save(directory_ / "it", state).written.get();
    EXPECT_EQ(pinned_bytes_of("memfd:ckptring"), 32 * kBlock);
  }
  // What is registered twice would be refused.
  EXPECT_TRUE(log.with("go through a small window").empty());
}

/// In a process of its own: a context stays.
TEST_F(GpuProcess, ADeviceThatTheStateIsNotOnGetsNoContext) {
  const auto has_context = [](int device) {
    return at::detail::getCUDAHooks().hasPrimaryContext(static_cast<c10::DeviceIndex>(device));
  };
  const int last = devices_.count() - 1;
  if (last == 0) GTEST_SKIP() << "only one CUDA device";
  if (has_context(0)) GTEST_SKIP() << "another test has used device 0 in this process";
  const StateDict state = dict({{"w", full(7 << 20, 1, last)}});
  for (const bool async : {true, false}) {
    std::unique_ptr<Checkpointer> checkpointer = make_sync_checkpointer();
    if (async) checkpointer = make_async_checkpointer(ring_of(3));
    const SaveHandle save = checkpointer->save(directory_ / "it", state);
    save.fence(devices_.current_stream(last));
    save.written.get();
    (void)checkpointer->load(directory_ / "it", state);
    (void)load("it", {.default_map_location = cuda_device(last)});
    checkpointer->close();
  }
  EXPECT_TRUE(has_context(last));
  for (int device = 0; device < last; ++device) EXPECT_FALSE(has_context(device)) << device;
}

constexpr std::int64_t kElements = 10 << 20;  // 40 blocks

TEST_F(GpuProcess, ItMayBeKilledWhileCopiesAreUnderWay) {
  const auto checkpointer = make_async_checkpointer(ring_of(48));
  at::Tensor w = full(kElements, 0, 0);
  for (int round = 0; round < 3; ++round) {
    auto busy = devices_.keep_busy(0);
    w.fill_(round);
    const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
    save.fence(devices_.current_stream(0));  // every copy is enqueued
    w.fill_(-1);
    checkpointer->ready();
    ASSERT_EQ(::kill(checkpointer->process_id(), SIGKILL), 0);
    busy.reset();
    EXPECT_GE(save.written.get().restarts, 1u);
    expect_equal(dict({{"w", at::full({kElements}, round, at::kFloat)}}), load("it"), "state");
  }
}

TEST_F(GpuProcess, ItMayBeKilledWhileTheStateStreamsThroughASmallerRing) {
  const auto checkpointer = make_async_checkpointer(ring_of(3));
  at::Tensor w = full(kElements, 0, 0);
  for (int round = 0; round < 3; ++round) {
    w.fill_(round);
    const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
    checkpointer->ready();
    ASSERT_EQ(::kill(checkpointer->process_id(), SIGKILL), 0);
    save.fence(devices_.current_stream(0));
    w.fill_(-1);
    save.written.get();
    expect_equal(dict({{"w", at::full({kElements}, round, at::kFloat)}}), load("it"), "state");
  }
}

TEST_F(GpuProcess, ItHasNothingOfCuda) {
  const at::Tensor before = full(1 << 20, 1, 0);  // CUDA is in use before it is started
  const auto checkpointer = make_async_checkpointer(ring_of(8));
  checkpointer->save(directory_ / "it", dict({{"w", before}})).written.get();
  const std::string process = "/proc/" + std::to_string(checkpointer->process_id());
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_THAT(line, testing::Not(testing::ContainsRegex("libcuda|nvidia|libtorch")));
  }
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd")) {
    EXPECT_THAT(std::filesystem::read_symlink(entry.path()).string(),
                testing::Not(testing::HasSubstr("nvidia")));
  }
}

}  // namespace
}  // namespace ckptring::test
