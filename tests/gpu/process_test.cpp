// The checkpoint process beside a trainer that uses CUDA, and the ring that the driver knows.
#include "gpu/gpu_test.h"
#include "support/log_lines.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

namespace ckptring::test {
namespace {

using GpuProcess = GpuTest;

TEST_F(GpuProcess, ARingIsRegisteredOnceHoweverManySavesThereAre) {
  const LogLines log;
  const auto checkpointer = make_async_checkpointer(ring_of(32));
  const StateDict state = dict({{"w", full(7 << 20, 1, 0)}});
  checkpointer->prepare(state);
  for (int i = 0; i < 4; ++i) checkpointer->save(directory_ / "it", state).written.get();
  checkpointer->close();
  const auto registered = log.with("of host memory registered with CUDA");
  ASSERT_EQ(registered.size(), 1u);
  EXPECT_THAT(registered.front().text, testing::HasSubstr("32 of 32 MiB"));
  EXPECT_TRUE(log.with("go through a small window").empty());
}

TEST_F(GpuProcess, ItMayBeKilledWhileCopiesAreUnderWay) {
  for (const std::uint64_t blocks : {48, 3}) {
    const auto checkpointer = make_async_checkpointer(ring_of(blocks));
    at::Tensor w = full(10 << 20, 0, 0);
    for (int round = 0; round < 3; ++round) {
      devices_.keep_busy(0);
      w.fill_(round);
      const SaveHandle save = checkpointer->save(directory_ / "it", dict({{"w", w}}));
      checkpointer->ready();
      ASSERT_EQ(::kill(checkpointer->process_id(), SIGKILL), 0);
      save.fence(devices_.current_stream(0));
      w.fill_(-1);
      EXPECT_GE(save.written.get().restarts, 1u);
      expect_equal(dict({{"w", at::full({10 << 20}, round, at::kFloat)}}), load("it"), "state");
    }
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
