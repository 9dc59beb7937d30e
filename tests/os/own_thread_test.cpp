#include "os/own_thread.h"

#include "os/background_thread.h"
#include "os/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace ckptring::os {
namespace {

TEST(OwnThread, IsOneFromTheMomentAtWhichItBecomesOne) {
  std::thread([] {
    EXPECT_FALSE(is_own_thread());
    become_own_thread("ckptring-test");
    EXPECT_TRUE(is_own_thread());
  }).join();
  std::thread([] {
    become_background_thread("ckptring-test");
    EXPECT_TRUE(is_own_thread());
  }).join();
  EXPECT_FALSE(is_own_thread());
}

TEST(OwnThread, IsEachOfATeamButItsCaller) {
  for (const auto priority : {ThreadTeam::Priority::foreground, ThreadTeam::Priority::background}) {
    ThreadTeam threads(4, "test", priority);
    std::atomic<int> own = 0;
    threads.run([&] { own += is_own_thread() ? 1 : 0; });
    EXPECT_EQ(own, 3);
    EXPECT_FALSE(is_own_thread());
  }
}

TEST(OwnThread, IsMadeForAWorkThatIsWaitedFor) {
  std::thread::id id;
  bool own = false;
  run_in_own_thread("ckptring-test", [&] {
    id = std::this_thread::get_id();
    own = is_own_thread();
  });
  EXPECT_NE(id, std::this_thread::get_id());
  EXPECT_NE(id, std::thread::id());
  EXPECT_TRUE(own);
}

}  // namespace
}  // namespace ckptring::os
