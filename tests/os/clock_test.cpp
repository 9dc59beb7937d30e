#include "os/clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ckptring::os {
namespace {

TEST(Clock, SecondsBecomeNanoseconds) {
  EXPECT_EQ(to_ns(0), 0u);
  EXPECT_EQ(to_ns(1.5), 1'500'000'000u);
  EXPECT_EQ(to_ns(1e-9), 1u);
}

TEST(Clock, NonsenseBecomesNothingAndForEverBecomesACentury) {
  EXPECT_EQ(to_ns(-1), 0u);
  EXPECT_EQ(to_ns(std::nan("")), 0u);
  constexpr std::uint64_t kCentury = 100ull * 365 * 86400 * 1'000'000'000;
  EXPECT_EQ(to_ns(1e300), kCentury);
  EXPECT_EQ(to_ns(std::numeric_limits<double>::infinity()), kCentury);
  EXPECT_FALSE(Deadline::after(1e300).passed());
}

TEST(Clock, NeverRunsBackwards) {
  const std::uint64_t first = monotonic_ns();
  EXPECT_GE(monotonic_ns(), first);
  EXPECT_GE(seconds_since(first), 0.0);
  EXPECT_EQ(seconds_since(first + to_ns(1000)), 0.0);
}

TEST(Deadline, PassesWhenItsTimeHasCome) {
  EXPECT_TRUE(Deadline::after(0).passed());
  EXPECT_TRUE(Deadline{0}.passed());
  EXPECT_FALSE(Deadline::after(1000).passed());
  EXPECT_FALSE(Deadline::never().passed());
}

TEST(Deadline, TheEarlierOfTwoCounts) {
  EXPECT_EQ(Deadline{5}.earlier({7}).ns, 5u);
  EXPECT_EQ(Deadline{7}.earlier({5}).ns, 5u);
  EXPECT_EQ(Deadline::never().earlier({5}).ns, 5u);
}

}  // namespace
}  // namespace ckptring::os
