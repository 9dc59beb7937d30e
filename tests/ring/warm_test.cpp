#include "ring/warm.h"

#include "ring/ring_memory.h"

#include <sys/stat.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace ckptring::ring::test {
namespace {

constexpr Geometry kWarmed{1ull << 20, 70, 2, 64};  // more than one step of 64 MiB

std::uint64_t allocated_bytes(int fd) {
  struct ::stat status {};
  EXPECT_EQ(::fstat(fd, &status), 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

TEST(Warmer, AllocatesEveryBlock) {
  const Segment segment = Segment::create(kWarmed, {});
  ASSERT_LT(allocated_bytes(segment.fd()), kWarmed.block_bytes);
  Warmer warmer(segment, 0);
  warmer.wait();
  EXPECT_GE(allocated_bytes(segment.fd()), kWarmed.slot_count * kWarmed.block_bytes);
}

TEST(Warmer, NeverWritesOverWhatIsStagedMeanwhile) {
  const Segment segment = Segment::create(kWarmed, {});
  const auto blocks = segment.view().blocks();
  const auto pattern = [](std::uint64_t lap) { return static_cast<int>(lap % 251 + 1); };
  Warmer warmer(segment, 0);
  for (std::uint64_t at = 0; at < kWarmed.slot_count; ++at) {
    std::memset(segment.view().block(at).data(), pattern(at), kWarmed.block_bytes);
  }
  warmer.wait();
  for (std::uint64_t at = 0; at < kWarmed.slot_count; ++at) {
    const auto block = segment.view().block(at);
    EXPECT_TRUE(
        std::all_of(block.begin(), block.end(),
                    [&](std::byte byte) { return byte == static_cast<std::byte>(pattern(at)); }))
        << "block " << at;
  }
  EXPECT_EQ(blocks.size(), kWarmed.slot_count * kWarmed.block_bytes);
}

TEST(Warmer, EndsEarlyWithItsOwner) {
  const Segment segment = Segment::create(kWarmed, {});
  { const Warmer warmer(segment, 0); }
  EXPECT_LE(allocated_bytes(segment.fd()), kWarmed.total_bytes());
}

}  // namespace
}  // namespace ckptring::ring::test
