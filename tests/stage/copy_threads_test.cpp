#include "stage/copy_threads.h"

#include <gtest/gtest.h>

#include <barrier>
#include <mutex>
#include <set>
#include <thread>

namespace ckptring::stage {
namespace {

TEST(CopyThreads, RunsTheWorkOnceInEachThreadAtTheSameTime) {
  CopyThreads threads(4);
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

TEST(CopyThreads, ReturnsOnlyWhenAllHaveReturned) {
  CopyThreads threads(3);
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

TEST(CopyThreads, OfOneIsTheCaller) {
  CopyThreads threads(1);
  std::thread::id id;
  threads.run([&] { id = std::this_thread::get_id(); });
  EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(CopyThreads, EndWithoutEverHavingWorked) { const CopyThreads threads(8); }

}  // namespace
}  // namespace ckptring::stage
