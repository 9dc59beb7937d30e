#include "supervise/log_reader.h"

#include "base/log.h"
#include "drain/log_to_pipe.h"
#include "support/forked.h"

#include <ckptring/log.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::supervise {
namespace {

class LogPipe : public ::testing::Test {
 public:
  ~LogPipe() override {
    set_log_handler({});
    set_log_level(LogLevel::warn);
  }

 protected:
  LogPipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("pipe");
    read_end_ = os::UniqueFd(ends[0]);
    write_end_ = os::UniqueFd(ends[1]);
    set_log_level(LogLevel::info);
  }
  void write(const std::string& text) {
    ASSERT_EQ(::write(write_end_.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }
  /// What arrives in the trainer's log.
  std::vector<std::pair<LogLevel, std::string>> pumped(LogReader& reader) {
    std::vector<std::pair<LogLevel, std::string>> lines;
    set_log_handler(
        [&](LogLevel level, std::string_view line) { lines.emplace_back(level, line); });
    reader.pump();
    set_log_handler({});
    return lines;
  }

  LogReader reader_of_rank(int rank) {
    return {os::UninheritedFd::made_by([this] { return std::move(read_end_); }), rank};
  }

  os::UniqueFd read_end_;
  os::UniqueFd write_end_;
};

TEST_F(LogPipe, CarriesLinesWithTheirLevels) {
  drain::log_to_pipe(write_end_.get());
  base::LogContext{3, 7}.info("drained {} blocks", 5);
  base::LogContext{3}.error("the disk is gone");
  set_log_handler({});
  LogReader reader = reader_of_rank(3);
  const auto lines = pumped(reader);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], std::pair(LogLevel::info, std::string("[rank 3] [save 7] drained 5 blocks")));
  EXPECT_EQ(lines[1], std::pair(LogLevel::error, std::string("[rank 3] the disk is gone")));
  EXPECT_EQ(reader.last_words(), "[rank 3] the disk is gone");
}

TEST_F(LogPipe, TakesForeignOutputAsWarnings) {
  write("terminate called\nwithout a newline");
  write_end_.reset();
  LogReader reader = reader_of_rank(1);
  const auto lines = pumped(reader);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].first, LogLevel::warn);
  EXPECT_EQ(lines[0].second, "[rank 1] checkpoint process: terminate called");
  EXPECT_EQ(lines[1].second, "[rank 1] checkpoint process: without a newline");
  EXPECT_EQ(reader.fd(), -1) << "the pipe is closed";
}

TEST_F(LogPipe, HasALineBeforeTheHelperThatLoggedItGoesOn) {
  EXPECT_EQ(test::exit_status_of_fork([this] {
              drain::log_to_pipe(write_end_.get());
              base::LogContext{3}.error("the last words");
              return 0;
            }),
            0);
  LogReader reader = reader_of_rank(3);
  const auto lines = pumped(reader);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].second, "[rank 3] the last words");
}

TEST_F(LogPipe, NeverMakesTheHelperWaitForAFullPipe) {
  drain::log_to_pipe(write_end_.get());
  for (int i = 0; i < 100'000; ++i) base::LogContext{}.info("line {}", i);
  set_log_handler({});
  LogReader reader = reader_of_rank(0);
  const auto lines = pumped(reader);
  EXPECT_GT(lines.size(), 100u);
  EXPECT_LT(lines.size(), 100'000u);
  EXPECT_EQ(lines[99].second, "[rank 0] line 99") << "lines stay whole";
}

}  // namespace
}  // namespace ckptring::supervise
