// What is logged while this exists, instead of on stderr.
#pragma once

#include <ckptring/log.h>

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace ckptring::test {

class LogLines {
 public:
  explicit LogLines(LogLevel level = LogLevel::debug) : level_before_(log_level()) {
    set_log_level(level);
    take_over();
  }
  ~LogLines() {
    set_log_handler({});
    set_log_level(level_before_);
  }
  LogLines(const LogLines&) = delete;
  LogLines& operator=(const LogLines&) = delete;

  struct Line {
    LogLevel level;
    std::string text;
  };
  /// Those that contain `part`, of all that were logged before.
  [[nodiscard]] std::vector<Line> with(std::string_view part) const {
    take_over();  // waits for them
    const std::scoped_lock lock(mutex_);
    std::vector<Line> found;
    for (const Line& line : lines_) {
      if (line.text.find(part) != std::string::npos) found.push_back(line);
    }
    return found;
  }

 private:
  void take_over() const {
    set_log_handler([this](LogLevel of_line, std::string_view line) {
      const std::scoped_lock lock(mutex_);
      lines_.push_back({of_line, std::string(line)});
    });
  }

  LogLevel level_before_;
  mutable std::mutex mutex_;
  mutable std::vector<Line> lines_;
};

}  // namespace ckptring::test
