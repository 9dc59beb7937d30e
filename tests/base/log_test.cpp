#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ckptring::base {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

class LogTest : public ::testing::Test {
 public:
  ~LogTest() override {
    set_log_handler({});
    set_log_level(before_);
  }

 protected:
  LogTest() {
    set_log_level(LogLevel::debug);
    set_log_handler([this](LogLevel level, std::string_view line) {
      lines_.emplace_back(level, std::string(line));
    });
  }
  LogLevel before_ = log_level();
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

TEST_F(LogTest, ALineSaysWhichRankAndSaveItIsAbout) {
  LogContext{3}.info("hello {}", 5);
  LogContext{3, 9}.error("{} of {}", "two", 2.5);
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::info, "[rank 3] hello 5"),
                                  Pair(LogLevel::error, "[rank 3] [save 9] two of 2.5")));
}

TEST_F(LogTest, LinesAboveTheLevelAreDropped) {
  const LogContext log{0};
  for (const LogLevel level :
       {LogLevel::off, LogLevel::error, LogLevel::warn, LogLevel::info, LogLevel::debug}) {
    set_log_level(level);
    EXPECT_EQ(log_level(), level);
    lines_.clear();
    log.error("x");
    log.warn("x");
    log.info("x");
    log.debug("x");
    write_log_line(LogLevel::error, "x");
    EXPECT_EQ(lines_.size(), static_cast<std::size_t>(level) + (level == LogLevel::off ? 0 : 1));
  }
}

TEST_F(LogTest, LinesOfTheCheckpointProcessPassUnchanged) {
  write_log_line(LogLevel::warn, "[rank 1] from afar {}");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::warn, "[rank 1] from afar {}")));
}

TEST_F(LogTest, AHandlerThatThrowsHarmsNobody) {
  set_log_handler([](LogLevel, std::string_view) { throw std::runtime_error("no"); });
  LogContext{0}.error("x");
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) { ++calls; });
  LogContext{0}.error("x");
  EXPECT_EQ(calls, 1);
}

TEST_F(LogTest, TheHandlerIsCalledByOneThreadAtATime) {
  std::atomic<int> inside{0};
  bool overlapped = false;
  int calls = 0;  // not atomic: the sink's lock orders it
  set_log_handler([&](LogLevel, std::string_view) {
    if (inside.fetch_add(1) != 0) overlapped = true;
    ++calls;
    inside.fetch_sub(1);
  });
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int line = 0; line < 500; ++line) LogContext{0}.info("line {}", line);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(overlapped);
  EXPECT_EQ(calls, 2000);
}

TEST_F(LogTest, WithoutAHandlerLinesGoToStderr) {
  set_log_handler({});
  ::testing::internal::CaptureStderr();
  LogContext{2}.warn("to the terminal");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring warn [rank 2] to the terminal\n");
}

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

TEST_F(LogTest, AHandlerMayLogAndWhatComesOfItGoesToStderr) {
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) {
    ++calls;
    LogContext{1}.warn("from the handler");
  });
  ::testing::internal::CaptureStderr();
  LogContext{0}.warn("x");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring warn [rank 1] from the handler\n");
  EXPECT_EQ(calls, 1);
}

TEST_F(LogTest, AHandlerMayReplaceItself) {
  auto alive = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = alive;
  std::vector<std::string> later;
  set_log_handler([this, &later, held = std::move(alive)](LogLevel, std::string_view line) {
    lines_.emplace_back(LogLevel::info, line);
    set_log_handler([&later](LogLevel, std::string_view next) { later.emplace_back(next); });
    ++*held;  // still there: it runs
  });
  LogContext{0}.info("first");
  LogContext{0}.info("second");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::info, "[rank 0] first")));
  EXPECT_THAT(later, ElementsAre("[rank 0] second"));
  EXPECT_TRUE(watched.expired());
}

TEST_F(LogTest, WhoLogsWhileTheHandlerIsBusyDoesNotWaitAndIsHeardInTurn) {
  Gate entered;
  Gate leave;
  set_log_handler([&](LogLevel level, std::string_view line) {
    lines_.emplace_back(level, line);
    entered.open();
    leave.wait();
  });
  std::thread busy([] { LogContext{0}.info("first"); });
  entered.wait();
  // As with a handler that needs what this thread holds: an interpreter's lock, for one.
  LogContext{0}.warn("second");
  LogContext{0}.error("third");
  EXPECT_EQ(lines_.size(), 1u) << "two calls at a time";
  leave.open();
  busy.join();
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::info, "[rank 0] first"),
                                  Pair(LogLevel::warn, "[rank 0] second"),
                                  Pair(LogLevel::error, "[rank 0] third")));
}

TEST_F(LogTest, AHandlerMayWaitForAThreadThatLogs) {
  set_log_handler([&](LogLevel level, std::string_view line) {
    lines_.emplace_back(level, line);
    if (lines_.size() == 1) std::thread([] { LogContext{0}.info("from the other"); }).join();
  });
  LogContext{0}.info("first");
  EXPECT_EQ(lines_.size(), 2u);
}

TEST_F(LogTest, AHandlerThatDoesNotKeepUpCostsNoMoreMemoryThanThat) {
  constexpr int kLines = 5000;
  Gate entered;
  Gate leave;
  int calls = 0;
  set_log_handler([&](LogLevel, std::string_view) {
    ++calls;
    entered.open();
    leave.wait();
  });
  std::thread busy([] { LogContext{0}.info("first"); });
  entered.wait();
  ::testing::internal::CaptureStderr();
  for (int line = 0; line < kLines; ++line) LogContext{0}.info("line");
  const std::string printed = ::testing::internal::GetCapturedStderr();
  leave.open();
  busy.join();
  EXPECT_EQ(calls, 1 + 4096);
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), kLines - 4096);
}

TEST_F(LogTest, OnceReplacedAHandlerDoesNotRunAnyMore) {
  Gate entered;
  std::atomic<bool> leave{false};
  std::atomic<bool> inside{false};
  set_log_handler([&](LogLevel, std::string_view) {
    inside = true;
    entered.open();
    while (!leave) std::this_thread::yield();
    inside = false;
  });
  std::thread busy([] { LogContext{0}.info("x"); });
  entered.wait();
  std::thread lets_it_go([&] { leave = true; });
  set_log_handler({});
  EXPECT_FALSE(inside);
  lets_it_go.join();
  busy.join();
}

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

TEST_F(LogTest, AChildThatIsForkedWhileAnotherThreadIsInTheHandlerLogsToStderr) {
  Gate entered;
  Gate leave;
  std::mutex of_the_handler;
  set_log_handler([&](LogLevel, std::string_view) {
    const std::scoped_lock lock(of_the_handler);
    entered.open();
    leave.wait();
  });
  std::thread busy([] { LogContext{0}.info("x"); });
  entered.wait();
  LogContext{0}.info("the parent's");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(status_of_child([] {
              LogContext{0}.info("the child's");
              set_log_handler([](LogLevel, std::string_view) { ::_exit(7); });
              LogContext{0}.info("x");
            }),
            7);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ckptring info [rank 0] the child's\n");
  leave.open();
  busy.join();
}

TEST_F(LogTest, AHandlerMayFork) {
  int status = -1;
  set_log_handler([&](LogLevel, std::string_view line) {
    if (line != "[rank 0] fork") ::_exit(7);
    status = status_of_child([] { LogContext{0}.info("within the handler, so to stderr"); });
  });
  ::testing::internal::CaptureStderr();
  LogContext{0}.info("fork");
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_EQ(status, 0);
  EXPECT_EQ(status_of_child([] { LogContext{0}.info("after"); }), 7);
}

TEST_F(LogTest, ForksWhileOthersLogHarmNobody) {
  std::atomic<bool> stop{false};
  set_log_handler([](LogLevel, std::string_view) {});
  std::vector<std::thread> threads;
  threads.reserve(2);
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        LogContext{0}.info("x");
        std::this_thread::yield();  // to the other one's handler
      }
    });
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(status_of_child([] {
                set_log_handler([](LogLevel, std::string_view) {});
                LogContext{0}.info("x");
              }),
              0);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

/// What a process prints whose environment has this setting.
std::string printed_with(const std::string& setting) {
  const std::string command = setting + " " CKPTRING_LOG_LEVEL_PRINTER " 2>&1";
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  std::string text;
  std::array<char, 256> part{};
  while (std::fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr) {
    text += part.data();
  }
  (void)::pclose(pipe);
  return text;
}

TEST(LogLevelFromEnvironment, IsWhatItSays) {
  EXPECT_EQ(printed_with("CKPTRING_LOG=off"), "");
  EXPECT_EQ(printed_with("CKPTRING_LOG=error"), "ckptring error [rank 0] line\n");
  EXPECT_THAT(printed_with("CKPTRING_LOG=info"), HasSubstr("ckptring info"));
  EXPECT_THAT(printed_with("CKPTRING_LOG=info"), Not(HasSubstr("debug")));
  EXPECT_THAT(printed_with("CKPTRING_LOG=debug"), HasSubstr("ckptring debug"));
}

TEST(LogLevelFromEnvironment, IsWarnUnlessItSaysSomethingKnown) {
  const std::string usual = "ckptring error [rank 0] line\nckptring warn [rank 0] line\n";
  EXPECT_EQ(printed_with("env -u CKPTRING_LOG"), usual);
  EXPECT_EQ(printed_with("CKPTRING_LOG=warn"), usual);
  EXPECT_EQ(printed_with("CKPTRING_LOG=shout"), usual);
  EXPECT_EQ(printed_with("CKPTRING_LOG="), usual);
}

}  // namespace
}  // namespace ckptring::base
