#include "os/log_handler.h"

#include "base/log.h"
#include "os/own_thread.h"
#include "support/forbid_calls.h"
#include "support/forked.h"

#include <ckptring/log.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace ckptring::os {
namespace {

using base::LogContext;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;

/// More than anything here takes.
constexpr seconds kLong{60};

/// Each test ends what its handler uses after the handler.
class LogHandlerTest : public ::testing::Test {
 public:
  ~LogHandlerTest() override {
    set_log_handler({});
    set_log_level(before_);
  }

 protected:
  LogHandlerTest() { set_log_level(LogLevel::debug); }

  /// A handler that notes what it is called for.
  [[nodiscard]] static LogHandler noting_in(std::vector<std::string>& lines) {
    return [&lines](LogLevel, std::string_view line) { lines.emplace_back(line); };
  }

 private:
  LogLevel before_ = log_level();
};

using LogHandlerDeathTest = LogHandlerTest;

/// Something that has happened, or has not yet.
class Gate {
 public:
  void open() {
    opened_ = true;
    opened_.notify_all();
  }
  void wait() const { opened_.wait(false); }

 private:
  std::atomic<bool> opened_{false};
};

TEST_F(LogHandlerTest, IsCalledForEachLineInTurnInOneThread) {
  constexpr int kThreads = 4;
  constexpr int kLines = 500;
  std::atomic<int> inside{0};
  bool overlapped = false;
  std::set<pid_t> callers;
  std::map<char, std::vector<int>> heard;  // not guarded: there is one thread
  set_log_handler([&](LogLevel level, std::string_view line) {
    if (inside.fetch_add(1) != 0) overlapped = true;
    EXPECT_EQ(level, LogLevel::info);
    callers.insert(::gettid());
    heard[line[9]].push_back(std::stoi(std::string(line.substr(11))));
    inside.fetch_sub(1);
  });
  std::mutex mutex;
  std::set<pid_t> loggers{::gettid()};
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      for (int line = 0; line < kLines; ++line) LogContext{0}.info("{} {}", number, line);
      const std::scoped_lock lock(mutex);
      loggers.insert(::gettid());
    });
  }
  for (std::thread& thread : threads) thread.join();
  set_log_handler({});
  EXPECT_FALSE(overlapped);
  ASSERT_EQ(callers.size(), 1u);
  EXPECT_FALSE(loggers.contains(*callers.begin()));
  ASSERT_EQ(heard.size(), std::size_t{kThreads});
  for (const auto& [thread, lines] : heard) {
    EXPECT_EQ(lines.size(), std::size_t{kLines});
    EXPECT_TRUE(std::is_sorted(lines.begin(), lines.end()));
  }
}

TEST_F(LogHandlerTest, IsCalledInAThreadThatTakesNoSignalAndWhereItsCodeIsNotOurs) {
  std::array<char, 16> name{};
  int takes_sigterm = -1;
  bool own = true;
  set_log_handler([&](LogLevel, std::string_view) {
    ::sigset_t blocked;
    ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, nullptr, &blocked), 0);
    takes_sigterm = 1 - ::sigismember(&blocked, SIGTERM);
    ASSERT_EQ(::pthread_getname_np(::pthread_self(), name.data(), name.size()), 0);
    own = is_own_thread();
  });
  LogContext{0}.info("x");
  set_log_handler({});
  EXPECT_STREQ(name.data(), "ckptring-log");
  EXPECT_EQ(takes_sigterm, 0);
  EXPECT_FALSE(own) << "a current device, for one, is the handler's";
}

TEST_F(LogHandlerTest, HoldsUpNobodyWhoLogs) {
  Gate entered;
  Gate leave;
  std::vector<std::string> lines;
  set_log_handler([&](LogLevel, std::string_view line) {
    lines.emplace_back(line);
    entered.open();
    leave.wait();
  });
  // As with a handler that needs what this thread holds: an interpreter's lock, for one.
  LogContext{0}.info("first");
  entered.wait();
  LogContext{0}.warn("second");
  LogContext{0}.error("third");
  EXPECT_EQ(lines.size(), 1u) << "two calls at a time";
  leave.open();
  set_log_handler({});
  EXPECT_THAT(lines, ElementsAre("[rank 0] first", "[rank 0] second", "[rank 0] third"));
}

TEST_F(LogHandlerTest, MayWaitForAThreadThatLogs) {
  Gate logged;
  std::vector<std::string> lines;
  set_log_handler([&](LogLevel, std::string_view line) {
    lines.emplace_back(line);
    if (lines.size() > 1) return;
    std::thread([] { LogContext{0}.info("from the other"); }).join();
    logged.open();
  });
  LogContext{0}.info("first");
  logged.wait();
  set_log_handler({});
  EXPECT_THAT(lines, ElementsAre("[rank 0] first", "[rank 0] from the other"));
}

TEST_F(LogHandlerTest, ThatDoesNotKeepUpCostsNoMoreMemoryThanThat) {
  constexpr int kLines = 5000;
  Gate entered;
  Gate leave;
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) {
    ++calls;
    entered.open();
    leave.wait();
  });
  LogContext{0}.info("first");
  entered.wait();
  ::testing::internal::CaptureStderr();
  for (int line = 0; line < kLines; ++line) LogContext{0}.info("line");
  const std::string printed = ::testing::internal::GetCapturedStderr();
  leave.open();
  set_log_handler({});
  EXPECT_EQ(calls, 1 + 4096);
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), kLines - 4096);
}

TEST_F(LogHandlerTest, MayLogAndWhatComesOfItGoesToStderr) {
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) {
    ++calls;
    LogContext{1}.warn("from the handler");
  });
  ::testing::internal::CaptureStderr();
  LogContext{0}.warn("x");
  set_log_handler({});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring warn [rank 1] from the handler\n");
  EXPECT_EQ(calls, 1);
}

TEST_F(LogHandlerTest, ThatThrowsHarmsNobody) {
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) {
    if (++calls == 1) throw std::runtime_error("no");
    if (calls == 2) throw 7;  // NOLINT: what is tested
  });
  for (int i = 0; i < 3; ++i) LogContext{0}.error("x");
  set_log_handler({});
  EXPECT_EQ(calls, 3);
}

TEST_F(LogHandlerTest, IsCalledForWhatWasLoggedBeforeItWasReplacedAndNotAnyMore) {
  Gate entered;
  std::atomic<bool> leave{false};
  std::atomic<bool> inside{false};
  auto alive = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = alive;
  std::vector<std::string> before;
  set_log_handler([&, held = std::move(alive)](LogLevel, std::string_view line) {
    inside = true;
    entered.open();
    while (!leave) std::this_thread::yield();
    before.emplace_back(line);
    inside = false;
  });
  LogContext{0}.info("first");
  LogContext{0}.info("second");
  entered.wait();
  std::thread lets_it_go([&] { leave = true; });
  std::vector<std::string> after;
  set_log_handler(noting_in(after));
  EXPECT_FALSE(inside);
  EXPECT_TRUE(watched.expired());
  EXPECT_THAT(before, ElementsAre("[rank 0] first", "[rank 0] second"));
  lets_it_go.join();
  LogContext{0}.info("third");
  set_log_handler({});
  EXPECT_EQ(before.size(), 2u);
  EXPECT_THAT(after, ElementsAre("[rank 0] third"));
}

TEST_F(LogHandlerTest, MayReplaceItselfAndIsNotCalledForWhatWaits) {
  Gate logged;
  auto alive = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = alive;
  std::vector<std::string> before;
  std::vector<std::string> after;
  set_log_handler([&, held = std::move(alive)](LogLevel, std::string_view line) {
    logged.wait();
    before.emplace_back(line);
    set_log_handler(noting_in(after));
    ++*held;  // still there: it runs
  });
  LogContext{0}.info("first");
  LogContext{0}.info("second");
  logged.open();
  wait_for_log_handler(kLong);
  LogContext{0}.info("third");
  set_log_handler({});
  EXPECT_THAT(before, ElementsAre("[rank 0] first"));
  EXPECT_THAT(after, ElementsAre("[rank 0] second", "[rank 0] third"));
  EXPECT_TRUE(watched.expired());
}

TEST_F(LogHandlerTest, MayTakeItselfAway) {
  Gate logged;
  set_log_handler([&](LogLevel, std::string_view) {
    logged.wait();
    set_log_handler({});
  });
  ::testing::internal::CaptureStderr();
  LogContext{0}.info("first");
  LogContext{0}.info("second");
  logged.open();
  wait_for_log_handler(kLong);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring info [rank 0] second\n");
}

TEST_F(LogHandlerTest, IsWaitedForUntilWhatWasLoggedIsHandled) {
  std::vector<std::string> lines;
  set_log_handler([&](LogLevel, std::string_view line) {
    std::this_thread::sleep_for(milliseconds(20));
    lines.emplace_back(line);
  });
  LogContext{0}.info("first");
  LogContext{0}.info("second");
  wait_for_log_handler(kLong);
  EXPECT_EQ(lines.size(), 2u);
}

TEST_F(LogHandlerTest, IsWaitedForNoLongerThanTheLimit) {
  Gate leave;
  set_log_handler([&](LogLevel, std::string_view) { leave.wait(); });
  LogContext{0}.info("x");
  const auto began = steady_clock::now();
  wait_for_log_handler(milliseconds(50));
  EXPECT_GE(steady_clock::now() - began, milliseconds(50));
  leave.open();
  set_log_handler({});
}

TEST_F(LogHandlerTest, DoesNotWaitForItself) {
  std::optional<steady_clock::duration> waited;
  set_log_handler([&](LogLevel, std::string_view) {
    const auto began = steady_clock::now();
    wait_for_log_handler(kLong);
    waited = steady_clock::now() - began;
  });
  LogContext{0}.info("x");
  set_log_handler({});
  ASSERT_TRUE(waited.has_value());
  EXPECT_LT(*waited, kLong / 2);
}

TEST_F(LogHandlerTest, WithoutAThreadForItIsLeftOutAndLinesGoToStderr) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(test::exit_status_of_fork([] {
              if (!test::forbid_new_threads(EAGAIN)) return 2;
              std::vector<std::string> lines;
              set_log_handler(noting_in(lines));
              LogContext{0}.info("first");
              LogContext{0}.info("second");
              wait_for_log_handler(kLong);
              set_log_handler({});
              return lines.empty() ? 0 : 3;
            }),
            0);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "ckptring info [rank 0] first\nckptring info [rank 0] second\n");
}

/// In children whose parent has threads.
class LogHandlerOfAChild : public LogHandlerTest {
 protected:
  void SetUp() override {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "the thread sanitizer does not know of threads that such a child makes";
#endif
  }
};

/// Its exit status, or 100 and its signal. It is killed if it takes longer than any of these does.
int status_of_child(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    body();
    ::_exit(0);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/// Waits until the handler has been called for what was logged, which ends the process.
[[noreturn]] void await_end_by_handler() {
  set_log_handler({});
  ::_exit(3);
}

TEST_F(LogHandlerOfAChild, IsItsParentsInAThreadOfItsOwn) {
  const pid_t parent = ::getpid();
  std::vector<std::string> lines;
  set_log_handler([&](LogLevel, std::string_view line) {
    if (::getpid() != parent) ::_exit(line == "[rank 0] the child's" ? 7 : 8);
    lines.emplace_back(line);
  });
  LogContext{0}.info("the parent's");
  wait_for_log_handler(kLong);
  EXPECT_EQ(status_of_child([] {
              LogContext{0}.info("the child's");
              await_end_by_handler();
            }),
            7);
  set_log_handler({});
  EXPECT_THAT(lines, ElementsAre("[rank 0] the parent's"));
}

TEST_F(LogHandlerOfAChild, IsTheDefaultIfItWasForkedWhileAnotherThreadWasInTheHandler) {
  Gate entered;
  Gate leave;
  std::mutex of_the_handler;
  set_log_handler([&](LogLevel, std::string_view) {
    const std::scoped_lock lock(of_the_handler);
    entered.open();
    leave.wait();
  });
  LogContext{0}.info("x");
  entered.wait();
  LogContext{0}.info("the parent's");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(status_of_child([] {
              LogContext{0}.info("the child's");
              wait_for_log_handler(kLong);
              set_log_handler([](LogLevel, std::string_view line) {
                ::_exit(line == "[rank 0] x" ? 7 : 8);  // not for what the parent has logged
              });
              LogContext{0}.info("x");
              await_end_by_handler();
            }),
            7);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring info [rank 0] the child's\n");
  leave.open();
  set_log_handler({});
}

TEST_F(LogHandlerOfAChild, ThatTheHandlerForksIsTheSame) {
  int status = -1;
  set_log_handler([&](LogLevel, std::string_view line) {
    if (line != "[rank 0] fork") ::_exit(7);
    status = status_of_child([] {
      LogContext{0}.info("within the handler, so to stderr");
      std::thread([] {
        LogContext{0}.info("not in it");
        await_end_by_handler();
      }).join();
    });
  });
  ::testing::internal::CaptureStderr();
  LogContext{0}.info("fork");
  wait_for_log_handler(kLong);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "ckptring info [rank 0] within the handler, so to stderr\n");
  EXPECT_EQ(status, 7);
  EXPECT_EQ(status_of_child([] {
              LogContext{0}.info("after");
              await_end_by_handler();
            }),
            7);
}

TEST_F(LogHandlerTest, ThatReturnsInAChildThatItForkedEndsTheChild) {
  // And nothing of the program runs there any more.
  static const pid_t parent = ::getpid();
  ASSERT_EQ(std::atexit([] {
              if (::getpid() != parent) ::_exit(9);
            }),
            0);
  int status = -1;
  set_log_handler([&](LogLevel, std::string_view) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      return;
    }
    if (::waitpid(child, &status, 0) != child) status = -2;
  });
  LogContext{0}.info("fork");
  set_log_handler({});
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(LogHandlerOfAChild, SurvivesForksWhileOthersLog) {
  if (!test::kForksWhileOthersAllocate) GTEST_SKIP() << test::kNoForksWhileOthersAllocate;
  std::atomic<bool> stop{false};
  set_log_handler([](LogLevel, std::string_view) {});
  std::vector<std::thread> threads;
  threads.reserve(2);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        LogContext{0}.info("x");
        wait_for_log_handler(kLong);
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(status_of_child([] {
                LogContext{0}.info("x");
                set_log_handler([](LogLevel, std::string_view) {});
                LogContext{0}.info("x");
                wait_for_log_handler(kLong);
                set_log_handler({});
              }),
              0);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LogHandlerOfAChild, SurvivesForksWhileTheThreadIsMade) {
  if (!test::kForksWhileOthersAllocate) GTEST_SKIP() << test::kNoForksWhileOthersAllocate;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(status_of_child([] {
                set_log_handler([](LogLevel, std::string_view) {});
                std::thread logs([] { LogContext{0}.info("x"); });
                const int status = status_of_child([] {
                  LogContext{0}.info("x");
                  set_log_handler({});
                });
                logs.join();
                if (status != 0) ::_exit(3);
              }),
              0);
  }
}

/// For ever.
void hang(LogLevel /*level*/, std::string_view /*line*/) {
  for (;;) ::pause();
}

TEST_F(LogHandlerDeathTest, ThatHangsDoesNotHoldTheEndOfTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [] {
    ::alarm(60);
    set_log_handler(hang);
    for (int i = 0; i < 3; ++i) LogContext{0}.info("x");
    std::exit(0);  // NOLINT(concurrency-mt-unsafe): what is tested
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(0), "");
}

/// Logs when the statics are destroyed, as what was made before it may.
class LogsAtTheEnd {
 public:
  explicit LogsAtTheEnd(const char* line) : line_(line) {}
  ~LogsAtTheEnd() {
    LogContext{0}.info("{}", line_);
    set_log_handler({});
  }
  LogsAtTheEnd(const LogsAtTheEnd&) = delete;
  LogsAtTheEnd& operator=(const LogsAtTheEnd&) = delete;

 private:
  const char* line_;
};

TEST_F(LogHandlerDeathTest, IsCalledForWhatIsLoggedWhileTheProcessExits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [] {
    ::alarm(60);
    static const LogsAtTheEnd at_the_end("the last line");  // before anything of the library
    set_log_handler([](LogLevel level, std::string_view line) {
      base::print_log_line(level, "handled " + std::string(line));
    });
    LogContext{0}.info("x");
    std::exit(0);  // NOLINT(concurrency-mt-unsafe): what is tested
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(0),
              "handled \\[rank 0\\] x\nckptring info handled \\[rank 0\\] the last line");
}

}  // namespace
}  // namespace ckptring::os
