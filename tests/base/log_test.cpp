#include "base/log.h"

#include "support/log_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ckptring::base {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

class LogTest : public ::testing::Test {
 protected:
  /// All lines so far.
  [[nodiscard]] std::vector<std::pair<LogLevel, std::string>> lines() const {
    std::vector<std::pair<LogLevel, std::string>> all;
    for (const test::LogLines::Line& line : log_.with("")) all.emplace_back(line.level, line.text);
    return all;
  }

 private:
  const test::LogLines log_;
};

TEST_F(LogTest, ALineSaysWhichRankAndSaveItIsAbout) {
  LogContext{3}.info("hello {}", 5);
  LogContext{3, 9}.error("{} of {}", "two", 2.5);
  EXPECT_THAT(lines(), ElementsAre(Pair(LogLevel::info, "[rank 3] hello 5"),
                                   Pair(LogLevel::error, "[rank 3] [save 9] two of 2.5")));
}

TEST_F(LogTest, LinesAboveTheLevelAreDropped) {
  const LogContext log{0};
  for (const LogLevel level :
       {LogLevel::off, LogLevel::error, LogLevel::warn, LogLevel::info, LogLevel::debug}) {
    set_log_level(level);
    EXPECT_EQ(log_level(), level);
    const std::size_t before = lines().size();
    log.error("x");
    log.warn("x");
    log.info("x");
    log.debug("x");
    write_log_line(LogLevel::error, "x");
    EXPECT_EQ(lines().size() - before,
              static_cast<std::size_t>(level) + (level == LogLevel::off ? 0 : 1));
  }
}

TEST_F(LogTest, LinesOfTheCheckpointProcessPassUnchanged) {
  write_log_line(LogLevel::warn, "[rank 1] from afar {}");
  EXPECT_THAT(lines(), ElementsAre(Pair(LogLevel::warn, "[rank 1] from afar {}")));
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
