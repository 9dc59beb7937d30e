#include "os/thread_team.h"

#include <gtest/gtest.h>

#include <sched.h>

#include <atomic>
#include <barrier>
#include <mutex>
#include <new>
#include <set>
#include <thread>

namespace ckptring::os {
namespace {

constexpr auto kForeground = OwnThread::Priority::foreground;

TEST(ThreadTeam, RunsTheWorkOnceInEachThreadAtTheSameTime) {
  ThreadTeam threads(4, "test", kForeground);
  EXPECT_EQ(threads.count(), 4u);
  std::barrier all_there(4);  // would wait for ever if they came one after the other
  std::mutex mutex;
  std::set<std::thread::id> ids;
  threads.run([&] {
    all_there.arrive_and_wait();
    const std::scoped_lock lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 4u);
  EXPECT_EQ(ids.count(std::this_thread::get_id()), 1u);
}

TEST(ThreadTeam, ReturnsOnlyWhenAllHaveReturned) {
  ThreadTeam threads(3, "test", kForeground);
  for (int round = 0; round < 500; ++round) {
    int plain = 0;  // not atomic: returning from run orders it
    std::mutex mutex;
    threads.run([&] {
      const std::scoped_lock lock(mutex);
      ++plain;
    });
    ASSERT_EQ(plain, 3);
  }
}

TEST(ThreadTeam, OfOneIsTheCaller) {
  ThreadTeam threads(1, "test", kForeground);
  std::thread::id id;
  threads.run([&] { id = std::this_thread::get_id(); });
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(ThreadTeam, PushesNobodyAsideInTheBackgroundOnly) {
  const auto policies_of_the_others = [](OwnThread::Priority priority) {
    ThreadTeam threads(3, "test", priority);
    std::mutex mutex;
    std::multiset<int> policies;
    const std::thread::id caller = std::this_thread::get_id();
    threads.run([&] {
      if (std::this_thread::get_id() == caller) return;
      const std::scoped_lock lock(mutex);
      policies.insert(::sched_getscheduler(0));
    });
    return policies;
  };
  EXPECT_EQ(policies_of_the_others(OwnThread::Priority::background),
            (std::multiset<int>{SCHED_BATCH, SCHED_BATCH}));
  const int own = ::sched_getscheduler(0);
  EXPECT_EQ(policies_of_the_others(kForeground), (std::multiset<int>{own, own}));
}

TEST(ThreadTeam, ThrowsWhatItsWorkThrewOnceAllHaveReturnedAndCanBeUsedOn) {
  ThreadTeam threads(3, "test", kForeground);
  const std::thread::id caller = std::this_thread::get_id();
  for (const bool in_caller : {true, false}) {
    std::barrier all_there(3);
    std::atomic<int> returned = 0;
    const auto work = [&] {
      all_there.arrive_and_wait();
      if ((std::this_thread::get_id() == caller) == in_caller) throw std::bad_alloc();
      ++returned;
    };
    EXPECT_THROW(threads.run(work), std::bad_alloc);
    EXPECT_EQ(returned, in_caller ? 2 : 1);
  }
  std::atomic<int> ran = 0;
  threads.run([&] { ++ran; });
  EXPECT_EQ(ran, 3);
}

TEST(ThreadTeam, EndWithoutEverHavingWorked) { const ThreadTeam threads(8, "test", kForeground); }

}  // namespace
}  // namespace ckptring::os
