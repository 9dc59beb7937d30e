#include "stage/block_copies.h"

#include "stage/host_copy_engine.h"
#include "stage/random_plan.h"

#include <gtest/gtest.h>

namespace ckptring::stage::test {
namespace {

void fill_block(const plan::FilePlan& plan, std::span<const Source> sources,
                std::uint64_t file_offset, std::span<std::byte> block) {
  BlockCopies copies;
  copies.add(plan, sources, file_offset, block);
  ASSERT_TRUE(copies.from_devices().empty());
  HostCopyEngine().copy(copies.from_host(),
                        [](const std::exception_ptr& failure) { ASSERT_EQ(failure, nullptr); });
}

TEST(BlockCopies, BlocksOfAnySizePutTogetherAreTheFile) {
  std::mt19937_64 random(42);
  for (int round = 0; round < 300; ++round) {
    const PlannedFile file = random_file(random, random() % 20, 1 + random() % 20'000);
    const std::vector<Source> sources = file.sources();
    const std::size_t block_bytes = 1 + random() % 9'000;
    Bytes result(file.image.size(), std::byte{0xee});
    for (std::size_t at = 0; at < result.size(); at += block_bytes) {
      const auto block = std::span(result).subspan(at, std::min(block_bytes, result.size() - at));
      fill_block(file.plan, sources, at, block);
    }
    ASSERT_EQ(result, file.image) << "round " << round;
  }
}

TEST(BlockCopies, BlocksMayBeFilledInAnyOrder) {
  std::mt19937_64 random(43);
  const PlannedFile file = random_file(random, 30, 5'000);
  const std::vector<Source> sources = file.sources();
  std::vector<std::size_t> begins;
  for (std::size_t at = 0; at < file.image.size(); at += 4096) begins.push_back(at);
  std::shuffle(begins.begin(), begins.end(), random);
  Bytes result(file.image.size());
  for (const std::size_t at : begins) {
    const std::size_t size = std::min<std::size_t>(4096, result.size() - at);
    fill_block(file.plan, sources, at, std::span(result).subspan(at, size));
  }
  EXPECT_EQ(result, file.image);
}

TEST(BlockCopies, WritesNothingOutsideOfTheBlock) {
  std::mt19937_64 random(44);
  const PlannedFile file = random_file(random, 10, 5'000);
  const std::vector<Source> sources = file.sources();
  constexpr std::byte kGuard{0xa5};
  for (int round = 0; round < 200; ++round) {
    const std::size_t at = random() % file.image.size();
    const std::size_t size = 1 + random() % (file.image.size() - at);
    Bytes memory(size + 32, kGuard);
    fill_block(file.plan, sources, at, std::span(memory).subspan(16, size));
    ASSERT_TRUE(std::equal(memory.begin() + 16, memory.end() - 16,
                           file.image.begin() + static_cast<std::ptrdiff_t>(at)));
    for (std::size_t i = 0; i < 16; ++i) {
      ASSERT_EQ(memory[i], kGuard);
      ASSERT_EQ(memory[memory.size() - 1 - i], kGuard);
    }
  }
}

TEST(BlockCopies, WritesPaddingOverWhatTheBlockHeldBefore) {
  // One payload behind 4095 zeros.
  const Bytes payload(10, std::byte{7});
  const std::vector<std::uint16_t> padding{4095};
  const plan::FilePlan plan({}, {{4095, 10, 0}}, {}, 4105, padding);
  const std::vector<Source> sources{{payload.data(), payload.size()}};
  Bytes block(4105, std::byte{0xff});
  fill_block(plan, sources, 0, block);
  Bytes expected(4095);
  expected.insert(expected.end(), payload.begin(), payload.end());
  EXPECT_EQ(block, expected);
}

}  // namespace
}  // namespace ckptring::stage::test
