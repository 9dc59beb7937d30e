#include "os/background_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <thread>

namespace ckptring::os {
namespace {

TEST(BackgroundThread, HasANameAndPushesNobodyAside) {
  std::thread([] {
    become_background_thread("ckptring-test");
    std::array<char, 16> name{};
    ASSERT_EQ(::pthread_getname_np(::pthread_self(), name.data(), name.size()), 0);
    EXPECT_STREQ(name.data(), "ckptring-test");
    EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
  }).join();
  EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
}

TEST(BackgroundThread, KeepsAPolicyThatSomebodyChose) {
  std::thread([] {
    ::sched_param priority{};
    ASSERT_EQ(::sched_setscheduler(0, SCHED_IDLE, &priority), 0);
    become_background_thread("ckptring-test");
    EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE);
  }).join();
}

}  // namespace
}  // namespace ckptring::os
