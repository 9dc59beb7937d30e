#include "os/own_thread.h"

#include "os/thread_team.h"
#include "support/forbid_calls.h"
#include "support/forked.h"
#include "support/log_lines.h"

#include <ckptring/error.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <string>
#include <thread>

namespace ckptring::os {
namespace {

constexpr auto kForeground = OwnThread::Priority::foreground;
constexpr auto kBackground = OwnThread::Priority::background;

TEST(OwnThread, IsKnownAsOneAndHasItsName) {
  for (const auto priority : {kForeground, kBackground}) {
    OwnThread("ckptring-test", priority, [] {
      EXPECT_TRUE(is_own_thread());
      std::array<char, 16> name{};
      ASSERT_EQ(::pthread_getname_np(::pthread_self(), name.data(), name.size()), 0);
      EXPECT_STREQ(name.data(), "ckptring-test");
    }).join();
    EXPECT_FALSE(is_own_thread());
  }
}

TEST(OwnThread, PushesNobodyAsideInTheBackground) {
  const int usual = ::sched_getscheduler(0);
  OwnThread("ckptring-test", kForeground, [&] {
    EXPECT_EQ(::sched_getscheduler(0), usual);
  }).join();
  OwnThread("ckptring-test", kBackground, [] {
    EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
  }).join();
  EXPECT_EQ(::sched_getscheduler(0), usual);
}

TEST(OwnThread, InTheForegroundIsSoAlsoIfItIsMadeInTheBackground) {
  const int usual = ::sched_getscheduler(0);
  OwnThread("ckptring-test", kBackground, [&] {
    OwnThread("ckptring-test", kForeground, [&] {
      EXPECT_EQ(::sched_getscheduler(0), usual);
    }).join();
    OwnThread("ckptring-test", kBackground, [&] {
      EXPECT_EQ(::sched_getscheduler(0), SCHED_BATCH);
    }).join();
  }).join();
}

TEST(OwnThread, KeepsAPolicyThatSomebodyChose) {
  std::thread([] {
    const ::sched_param priority{};
    ASSERT_EQ(::sched_setscheduler(0, SCHED_IDLE, &priority), 0);
    OwnThread("ckptring-test", kBackground, [] {
      EXPECT_EQ(::sched_getscheduler(0), SCHED_IDLE);
    }).join();
  }).join();
}

::sigset_t blocked_now() {
  ::sigset_t mask;
  EXPECT_EQ(::pthread_sigmask(SIG_SETMASK, nullptr, &mask), 0);
  return mask;
}

TEST(OwnThread, TakesNoSignalThatIsMeantForTheProgram) {
  const ::sigset_t before = blocked_now();
  ::sigset_t inside;
  OwnThread("ckptring-test", kForeground, [&] { inside = blocked_now(); }).join();
  for (int signal = 1; signal < NSIG; ++signal) {
    // The last two are the C library's own.
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33) continue;
    const bool raised_by_itself = signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
                                  signal == SIGILL || signal == SIGTRAP || signal == SIGSYS;
    EXPECT_EQ(::sigismember(&inside, signal), raised_by_itself ? 0 : 1) << signal;
  }
  const ::sigset_t after = blocked_now();
  for (int signal = 1; signal < NSIG; ++signal) {
    EXPECT_EQ(::sigismember(&after, signal), ::sigismember(&before, signal)) << "the maker's";
  }
}

TEST(OwnThread, LogsWhatItsWorkThrowsAndEndsNothingElse) {
  const test::LogLines log;
  OwnThread("ckptring-test", kForeground, [] { throw std::runtime_error("no more"); }).join();
  OwnThread("ckptring-test", kForeground, [] { throw 7; }).join();  // NOLINT: what is tested
  ASSERT_EQ(log.with("ckptring-test").size(), 2u);
  EXPECT_EQ(log.with("ckptring-test").front().level, LogLevel::error);
  EXPECT_NE(log.with("ckptring-test").front().text.find("no more"), std::string::npos);
}

TEST(OwnThread, IsAnErrorWithWordsWhereTheSystemAllowsNoMore) {
  EXPECT_EQ(test::exit_status_of_fork([] {
              if (!test::forbid_new_threads(EAGAIN)) return 2;
              try {
                OwnThread("ckptring-test", kForeground, [] {}).join();
              } catch (const Error& error) {
                const std::string what = error.what();
                const bool named = what.find("ckptring-test") != std::string::npos &&
                                   what.find("RLIMIT_NPROC") != std::string::npos;
                return named && error.code() == ErrorCode::out_of_memory ? 0 : 3;
              }
              return 4;
            }),
            0);
}

TEST(OwnThread, IsWaitedForByItsDestructorAndByWhatIsAssignedToIt) {
  std::atomic<int> ended = 0;
  {
    OwnThread thread("ckptring-test", kForeground, [&] { ++ended; });
    thread = OwnThread("ckptring-test", kForeground, [&] { ++ended; });
    EXPECT_GE(ended, 1);
  }
  EXPECT_EQ(ended, 2);
}

TEST(OwnThread, IsEachOfATeamButItsCaller) {
  for (const auto priority : {kForeground, kBackground}) {
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
