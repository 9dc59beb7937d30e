#include "store/pending_write.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>

namespace ckptring::store {
namespace {

using Next = PendingWrite::Next;

const std::array<std::byte, 12288> kMemory{};

TEST(PendingWrite, EndsWithItsLastByte) {
  PendingWrite write(7, 8192, kMemory.data(), 100, 1);
  EXPECT_EQ(write.advance(100), Next::finished);
  EXPECT_EQ(write.error(), 0);
  EXPECT_EQ(write.token(), 7U);
}

TEST(PendingWrite, GoesOnWhereAShortResultEnded) {
  PendingWrite write(7, 8192, kMemory.data(), 100, 1);
  EXPECT_EQ(write.advance(30), Next::again);
  EXPECT_EQ(write.offset(), 8222U);
  EXPECT_EQ(write.size(), 70U);
  EXPECT_EQ(write.data(), kMemory.data() + 30);
  EXPECT_EQ(write.advance(70), Next::finished);
}

TEST(PendingWrite, GoesOnFromAWholeUnitOnly) {
  PendingWrite write(7, 0, kMemory.data(), 3 * 4096, 4096);
  EXPECT_EQ(write.advance(5000), Next::again);
  EXPECT_EQ(write.offset(), 4096U);
  EXPECT_EQ(write.size(), 2 * 4096U);
}

TEST(PendingWrite, TriesAgainWhenInterruptedOrTurnedAway) {
  PendingWrite write(7, 0, kMemory.data(), 100, 1);
  EXPECT_EQ(write.advance(-EINTR), Next::again);
  EXPECT_EQ(write.advance(-EAGAIN), Next::again);
  EXPECT_EQ(write.size(), 100U);
}

TEST(PendingWrite, FailsWithTheSystemsError) {
  PendingWrite write(7, 0, kMemory.data(), 100, 1);
  EXPECT_EQ(write.advance(-ENOSPC), Next::failed);
  EXPECT_EQ(write.error(), ENOSPC);
}

TEST(PendingWrite, GivesUpOnADiskThatTakesNothing) {
  for (const std::int64_t nothing : {std::int64_t{0}, std::int64_t{-EAGAIN}, std::int64_t{4095}}) {
    PendingWrite write(7, 0, kMemory.data(), 8192, 4096);
    int attempts = 1;
    while (write.advance(nothing) == Next::again && attempts < 100'000) ++attempts;
    EXPECT_EQ(write.error(), nothing < 0 ? EAGAIN : EIO);
    EXPECT_LE(attempts, 1000);
  }
}

TEST(PendingWrite, DoesNotBelieveMoreThanItAskedFor) {
  PendingWrite write(7, 0, kMemory.data(), 100, 1);
  EXPECT_EQ(write.advance(101), Next::failed);
  EXPECT_EQ(write.error(), EIO);
}

}  // namespace
}  // namespace ckptring::store
