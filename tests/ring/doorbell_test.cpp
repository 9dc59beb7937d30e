#include "ring/doorbell.h"

#include "os/clock.h"
#include "os/eventfd.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

namespace ckptring::ring::test {
namespace {

// Waits in these tests end by what is tested; the limits only turn a lost wake-up into a failure.
constexpr double kLimitSecs = 30;
constexpr double kFarSecs = 3600;

class Doorbell : public ::testing::Test {
 protected:
  template <class Moved>
  bool sleep(Moved&& moved, std::span<os::Waitable> others, double seconds) {
    return sleep_until(flag_, bell_.get(), std::forward<Moved>(moved), others,
                       os::Deadline::after(seconds));
  }
  void move_and_ring() {
    position_.store(1, std::memory_order_seq_cst);
    ring_if_asleep(flag_, bell_.get());
  }
  bool moved() const { return position_.load(std::memory_order_seq_cst) != 0; }

  os::UniqueFd bell_ = os::make_eventfd();
  std::atomic<std::uint32_t> flag_{0};
  std::atomic<std::uint64_t> position_{0};
};

TEST_F(Doorbell, IsNotRungForAPeerThatIsAwake) {
  move_and_ring();
  EXPECT_FALSE(os::is_ready(bell_.get()));
}

TEST_F(Doorbell, IsRungForASleeper) {
  flag_ = 1;
  move_and_ring();
  EXPECT_TRUE(os::is_ready(bell_.get()));
}

TEST_F(Doorbell, ASleeperLooksAgainAfterRaisingItsFlag) {
  // The peer moved before the flag was raised, saw nobody asleep and did not ring.
  move_and_ring();
  bool flag_was_up = false;
  EXPECT_TRUE(sleep(
      [&] {
        flag_was_up = flag_ == 1;
        return moved();
      },
      {}, 0));
  EXPECT_TRUE(flag_was_up);
}

TEST_F(Doorbell, ARingBetweenLookAndPollIsNotLost) {
  const std::uint64_t began = os::monotonic_ns();
  int looks = 0;
  EXPECT_TRUE(sleep(
      [&] {
        const bool seen = moved();
        if (++looks == 1) move_and_ring();  // the peer moves right after the look
        return seen;
      },
      {}, kLimitSecs));
  EXPECT_EQ(looks, 2);
  EXPECT_LT(os::seconds_since(began), kLimitSecs / 2);
}

TEST_F(Doorbell, ALateRingOfAnEarlierSleepEndsNothing) {
  os::ring_bell(bell_.get());
  int looks = 0;
  EXPECT_FALSE(sleep(
      [&] {
        ++looks;
        return moved();
      },
      {}, 0.02));
  EXPECT_GE(looks, 2);  // woken for nothing, looked, slept on
  EXPECT_FALSE(os::is_ready(bell_.get()));
}

TEST_F(Doorbell, TheFlagIsDownAfterEveryWayToWake) {
  EXPECT_FALSE(sleep([] { return false; }, {}, 0));
  EXPECT_EQ(flag_, 0u);
  EXPECT_TRUE(sleep([] { return true; }, {}, kFarSecs));
  EXPECT_EQ(flag_, 0u);
  const os::UniqueFd other = os::make_eventfd();
  os::ring_bell(other.get());
  std::array<os::Waitable, 1> others{os::Waitable{other.get()}};
  EXPECT_FALSE(sleep([] { return false; }, others, kFarSecs));
  EXPECT_EQ(flag_, 0u);
}

TEST_F(Doorbell, ASleepEndsWhenAnotherDescriptorIsReadyAndSaysWhich) {
  const os::UniqueFd quiet = os::make_eventfd();
  const os::UniqueFd loud = os::make_eventfd();
  os::ring_bell(loud.get());
  std::array<os::Waitable, 3> others{os::Waitable{quiet.get()}, os::Waitable{-1},
                                     os::Waitable{loud.get()}};
  EXPECT_FALSE(sleep([this] { return moved(); }, others, kFarSecs));
  EXPECT_FALSE(others[0].ready);
  EXPECT_FALSE(others[1].ready);
  EXPECT_TRUE(others[2].ready);
}

TEST_F(Doorbell, WhatHappenedTogetherWithAnotherDescriptorIsSeen) {
  const os::UniqueFd other = os::make_eventfd();
  int looks = 0;
  std::array<os::Waitable, 1> others{os::Waitable{other.get()}};
  EXPECT_TRUE(sleep(
      [&] {
        const bool seen = moved();
        if (++looks == 1) {
          position_ = 1;  // a peer that dies before it rings
          os::ring_bell(other.get());
        }
        return seen;
      },
      others, kFarSecs));
}

TEST_F(Doorbell, TooManyDescriptorsAreRefused) {
  std::array<os::Waitable, 5> others{os::Waitable{-1}, os::Waitable{-1}, os::Waitable{-1},
                                     os::Waitable{-1}, os::Waitable{-1}};
  EXPECT_THROW(sleep([] { return true; }, others, 0), Error);
}

TEST_F(Doorbell, NoWakeUpIsLostBetweenTwoThreads) {
  // Ping-pong: a lost wake-up on either side ends it by the time limit.
  constexpr std::uint64_t kRounds = 20'000;
  const os::UniqueFd pong_bell = os::make_eventfd();
  std::atomic<std::uint32_t> pong_flag{0};
  std::atomic<std::uint64_t> pong{0};
  bool ponger_failed = false;
  std::thread ponger([&] {
    for (std::uint64_t round = 1; round <= kRounds && !ponger_failed; ++round) {
      ponger_failed = !sleep([&] { return position_.load(std::memory_order_seq_cst) >= round; }, {},
                             kLimitSecs);
      pong.store(round, std::memory_order_seq_cst);
      ring_if_asleep(pong_flag, pong_bell.get());
    }
  });
  bool pinger_failed = false;
  for (std::uint64_t round = 1; round <= kRounds && !pinger_failed; ++round) {
    position_.store(round, std::memory_order_seq_cst);
    ring_if_asleep(flag_, bell_.get());
    pinger_failed = !sleep_until(
        pong_flag, pong_bell.get(), [&] { return pong.load(std::memory_order_seq_cst) >= round; },
        {}, os::Deadline::after(kLimitSecs));
  }
  ponger.join();
  EXPECT_FALSE(pinger_failed);
  EXPECT_FALSE(ponger_failed);
}

}  // namespace
}  // namespace ckptring::ring::test
