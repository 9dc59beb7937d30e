#include "os/poll.h"

#include "os/eventfd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <ctime>
#include <vector>

namespace ckptring::os {
namespace {

TEST(WaitAny, MarksWhatIsReadyAndNothingElse) {
  const UniqueFd quiet = make_eventfd();
  const UniqueFd loud = make_eventfd();
  ring_bell(loud.get());
  std::array<Waitable, 3> all{Waitable{quiet.get(), true}, Waitable{-1, true},
                              Waitable{loud.get()}};
  EXPECT_TRUE(wait_any(all, Deadline::never()));
  EXPECT_FALSE(all[0].ready);
  EXPECT_FALSE(all[1].ready);
  EXPECT_TRUE(all[2].ready);
}

TEST(WaitAny, EndsAtItsDeadline) {
  const UniqueFd quiet = make_eventfd();
  std::array<Waitable, 1> one{Waitable{quiet.get()}};
  const std::uint64_t began = monotonic_ns();
  EXPECT_FALSE(wait_any(one, Deadline::after(0.02)));
  EXPECT_GE(monotonic_ns() - began, 20'000'000u);
  EXPECT_FALSE(wait_any(one, Deadline{0}));
  EXPECT_FALSE(wait_any({}, Deadline::after(0.001)));
}

TEST(WaitAny, TakesAHangUpForReady) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(ends[0]);
  EXPECT_FALSE(is_ready(read_end.get()));
  ::close(ends[1]);
  EXPECT_TRUE(is_ready(read_end.get()));
}

TEST(WaitAny, RefusesMoreThanItCanHold) {
  std::vector<Waitable> many(9, Waitable{-1});
  EXPECT_THROW(wait_any(many, Deadline{0}), Error);
}

TEST(WaitAny, GoesOnAfterASignal) {
  // An interval timer interrupts the wait again and again.
  struct sigaction handler {};
  handler.sa_handler = [](int) {};
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR1, &handler, &before), 0);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  timer_t timer{};
  ASSERT_EQ(::timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  const itimerspec often{{0, 2'000'000}, {0, 2'000'000}};
  ASSERT_EQ(::timer_settime(timer, 0, &often, nullptr), 0);
  const UniqueFd quiet = make_eventfd();
  std::array<Waitable, 1> one{Waitable{quiet.get()}};
  const std::uint64_t began = monotonic_ns();
  EXPECT_FALSE(wait_any(one, Deadline::after(0.05)));
  EXPECT_GE(monotonic_ns() - began, 50'000'000u);
  ASSERT_EQ(::timer_delete(timer), 0);
  ASSERT_EQ(::sigaction(SIGUSR1, &before, nullptr), 0);
}

}  // namespace
}  // namespace ckptring::os
