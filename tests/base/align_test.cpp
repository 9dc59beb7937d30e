#include "base/align.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace ckptring::base {
namespace {

TEST(Align, RoundsUpToAMultiple) {
  EXPECT_EQ(align_up(0, 4096), 0u);
  EXPECT_EQ(align_up(1, 4096), 4096u);
  EXPECT_EQ(align_up(4096, 4096), 4096u);
  EXPECT_EQ(align_up(4097, 4096), 8192u);
}

TEST(Align, DividesRoundingUpWithoutOverflow) {
  EXPECT_EQ(ceil_div(0, 10), 0u);
  EXPECT_EQ(ceil_div(1, 10), 1u);
  EXPECT_EQ(ceil_div(10, 10), 1u);
  EXPECT_EQ(ceil_div(11, 10), 2u);
  EXPECT_EQ(ceil_div(UINT64_MAX, 2), 1ull << 63);
}

TEST(Align, SaysWhenASumOrProductDoesNotFit) {
  EXPECT_EQ(checked_add(UINT64_MAX - 1, 1), UINT64_MAX);
  EXPECT_FALSE(checked_add(UINT64_MAX, 1));
  EXPECT_EQ(checked_mul(1ull << 32, (1ull << 32) - 1), UINT64_MAX - UINT32_MAX);
  EXPECT_FALSE(checked_mul(1ull << 32, 1ull << 32));
  EXPECT_EQ(checked_mul(0, UINT64_MAX), 0u);
}

}  // namespace
}  // namespace ckptring::base
