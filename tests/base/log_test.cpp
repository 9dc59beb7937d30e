#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdio>
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
