#include "os/thread_team.h"

#include <gtest/gtest.h>

#include <barrier>
#include <mutex>
#include <set>
#include <thread>

namespace ckptring::os {
namespace {

TEST(ThreadTeam, RunsTheWorkOnceInEachThreadAtTheSameTime) {
  ThreadTeam threads(4, "test");
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
  ThreadTeam threads(3, "test");
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
  ThreadTeam threads(1, "test");
  std::thread::id id;
  threads.run([&] { id = std::this_thread::get_id(); });
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(ThreadTeam, EndWithoutEverHavingWorked) { const ThreadTeam threads(8, "test"); }

}  // namespace
}  // namespace ckptring::os
