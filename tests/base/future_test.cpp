#include <ckptring/future.h>
#include <ratio>

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>

namespace ckptring {
namespace {

using namespace std::chrono_literals;
using std::chrono::duration;
using std::chrono::steady_clock;
using std::chrono::time_point;
using Seconds = duration<double>;

/// Whether `wait` returns what it is to return: whether the outcome is there, and not before that.
template <class Wait>
void expect_to_wait_until_it_is_there(Wait wait) {
  Promise<int> promise;
  const Future<int> future = promise.future();
  std::thread giver([&] { promise.set_value(7); });
  EXPECT_TRUE(wait(future));
  giver.join();
}

TEST(Future, WaitsAsLongAsAnyDurationSays) {
  expect_to_wait_until_it_is_there([](const auto& f) { return f.wait_for(Seconds(600.5)); });
  expect_to_wait_until_it_is_there([](const auto& f) { return f.wait_for(duration<float>(600)); });
  expect_to_wait_until_it_is_there(
      [](const auto& f) { return f.wait_for(duration<std::uint8_t, std::ratio<60>>(10)); });
  expect_to_wait_until_it_is_there([](const auto& f) { return f.wait_for(600s); });
}

TEST(Future, WaitsForEverWhereNoClockCanHoldTheEnd) {
  const auto waits_for = [](auto timeout) {
    expect_to_wait_until_it_is_there([&](const auto& f) { return f.wait_for(timeout); });
    expect_to_wait_until_it_is_there([&](const auto& f) {
      return f.wait_until(time_point<steady_clock, decltype(timeout)>(timeout));
    });
  };
  waits_for(std::chrono::hours::max());
  waits_for(std::chrono::seconds::max());
  waits_for(std::chrono::nanoseconds::max());
  waits_for(duration<std::uint64_t>(std::numeric_limits<std::uint64_t>::max()));
  waits_for(Seconds::max());
  waits_for(Seconds(std::numeric_limits<double>::infinity()));
  waits_for(Seconds(9.2e9));
  expect_to_wait_until_it_is_there(
      [](const auto& f) { return f.wait_until(steady_clock::time_point::max()); });
}

TEST(Future, WaitsThroughUnitsThatDoNotDivideTheClocks) {
  Promise<void> promise;
  const Future<void> future = promise.future();
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    promise.set_value();
  });
  using Frames = std::chrono::duration<std::int64_t, std::ratio<1, 30>>;
  EXPECT_TRUE(future.wait_for(Frames(120'000'000'000)));
  later.join();
}

TEST(Future, OnlyLooksWhereThereIsNothingToWaitFor) {
  Promise<void> promise;
  const Future<void> future = promise.future();
  const auto looks_for = [&](auto timeout) {
    EXPECT_FALSE(future.wait_for(timeout));
    EXPECT_FALSE(future.wait_until(time_point<steady_clock, decltype(timeout)>(timeout)));
  };
  looks_for(0s);
  looks_for(-1ns);
  looks_for(std::chrono::hours::min());
  looks_for(std::chrono::seconds::min());
  looks_for(std::chrono::nanoseconds::min());
  looks_for(Seconds(-0.5));
  looks_for(Seconds::min());
  looks_for(Seconds(-std::numeric_limits<double>::infinity()));
  looks_for(Seconds(std::nan("")));
  EXPECT_FALSE(future.wait_until(steady_clock::time_point::min()));
  promise.set_value();
  EXPECT_TRUE(future.wait_for(-1s));
  EXPECT_TRUE(future.wait_until(steady_clock::time_point::min()));
}

TEST(Future, WaitsNoShorterThanItIsTold) {
  Promise<void> promise;
  const Future<void> future = promise.future();
  const auto begin = steady_clock::now();
  EXPECT_FALSE(future.wait_for(Seconds(0.02)));
  EXPECT_GE(steady_clock::now() - begin, 20ms);
  const auto end = steady_clock::now() + 20ms;
  EXPECT_FALSE(future.wait_until(end));
  EXPECT_GE(steady_clock::now(), end);
}

}  // namespace
}  // namespace ckptring
