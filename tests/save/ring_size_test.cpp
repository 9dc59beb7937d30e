#include "save/ring_size.h"

#include "support/launch_environment.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>

#include <cmath>

namespace ckptring::save {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
const AskMemoryLeft kLeft = [] { return os::MemoryLeft{1000 * kMiB, "MemAvailable"}; };

CheckpointerConfig config_with(std::uint64_t ring_bytes) {
  CheckpointerConfig config;
  config.process_config.ring_bytes = ring_bytes;
  config.process_config.ranks_on_node = 1;
  return config;
}

ErrorCode complaint(const CheckpointerConfig& config) {
  try {
    check_ring_config(config, kLeft);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::ok;
}

TEST(RingSize, IsTheFileRoundedUpToBlocks) {
  const RingSize size = choose_ring(config_with(0), 100 * kMiB + 1, 1000, kLeft);
  EXPECT_EQ(size.geometry.slot_count, 26u);
}

TEST(RingSize, IsAtMostAQuarterOfWhatIsLeftSharedByTheRanksOfTheNode) {
  CheckpointerConfig config = config_with(0);
  EXPECT_EQ(choose_ring(config, 900 * kMiB, 1000, kLeft).geometry.slot_count, 62u);
  config.process_config.ranks_on_node = 4;
  EXPECT_EQ(choose_ring(config, 900 * kMiB, 1000, kLeft).geometry.slot_count, 15u);
}

TEST(RingSize, TakesTheNumberOfRanksFromTheLauncher) {
  CheckpointerConfig config = config_with(0);
  config.process_config.ranks_on_node = 0;
  test::LaunchEnvironment launch;
  EXPECT_EQ(ranks_on_node(config.process_config), 1);
  launch.put("LOCAL_WORLD_SIZE", "8");
  EXPECT_EQ(ranks_on_node(config.process_config), 8);
  config.process_config.ranks_on_node = 2;
  EXPECT_EQ(ranks_on_node(config.process_config), 2);
  config.process_config.ranks_on_node = 0;
  launch.put("LOCAL_WORLD_SIZE", "many");
  EXPECT_THROW(ranks_on_node(config.process_config), Error);
}

TEST(RingSize, IsAsConfiguredIfConfigured) {
  EXPECT_EQ(choose_ring(config_with(40 * kMiB), 900 * kMiB, 1000, kLeft).geometry.slot_count, 10u);
}

TEST(RingSize, AsksForTheMemoryThatIsLeftOnlyWhereItMatters) {
  int asked = 0;
  const AskMemoryLeft left = [&] {
    ++asked;
    return kLeft();
  };
  check_ring_config(config_with(0), left);
  (void)choose_ring(config_with(0), 0, 0, left);
  (void)choose_ring(config_with(40 * kMiB), 900 * kMiB, 1000, left);
  EXPECT_EQ(asked, 0);
  check_ring_config(config_with(40 * kMiB), left);
  (void)choose_ring(config_with(0), 900 * kMiB, 1000, left);
  EXPECT_EQ(asked, 2);
}

TEST(RingSize, IsWorthAnotherRingOnlyIfItIsHalfAsLargeAgain) {
  const auto worth = [](std::uint64_t wanted, std::uint64_t there) {
    return is_worth_making({4096, wanted, 2, 64}, {4096, there, 2, 64});
  };
  EXPECT_TRUE(worth(3, 2));
  EXPECT_TRUE(worth(5, 3));
  EXPECT_FALSE(worth(4, 3));
  EXPECT_TRUE(worth(15, 10));
  EXPECT_FALSE(worth(14, 10));
  EXPECT_FALSE(worth(10, 10));
  EXPECT_FALSE(worth(2, 10));
}

TEST(RingConfig, RefusesNonsenseAtOnce) {
  EXPECT_EQ(complaint(config_with(40 * kMiB)), ErrorCode::ok);
  EXPECT_EQ(complaint(config_with(1)), ErrorCode::invalid_argument);
  EXPECT_EQ(complaint(config_with(4 * kMiB)), ErrorCode::invalid_argument) << "one block";
  EXPECT_EQ(complaint(config_with(2000 * kMiB)), ErrorCode::out_of_memory);
  EXPECT_EQ(complaint(config_with(UINT64_MAX)), ErrorCode::invalid_argument);

  CheckpointerConfig config = config_with(0);
  config.process_config.block_bytes = 4097;
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
  config.process_config.block_bytes = 0;
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
  config = config_with(0);
  config.max_saves_in_flight = 0;
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
  config = config_with(0);
  config.process_config.ranks_on_node = -1;
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
  config = config_with(0);
  config.process_config.stall_timeout_secs = std::nan("");
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
  config = config_with(0);
  config.process_config.plan_bytes = 100;
  EXPECT_EQ(complaint(config), ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace ckptring::save
