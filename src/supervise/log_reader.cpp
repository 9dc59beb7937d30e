#include "supervise/log_reader.h"

#include "base/log.h"
#include "drain/drain_protocol.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

namespace ckptring::supervise {
namespace {

constexpr std::size_t kRemembered = 5;

}  // namespace

void LogReader::pump() {
  if (!pipe_) return;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(pipe_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {  // closed by the helper, or broken: nothing more will come
      if (!partial_.empty()) take_line(partial_);
      partial_.clear();
      pipe_.reset();
      return;
    }
    partial_.append(buffer.data(), static_cast<std::size_t>(got));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = partial_.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      take_line(std::string_view(partial_).substr(begin, end - begin));
    }
    partial_.erase(0, begin);
    if (partial_.size() > drain::kLongestLogLine) {  // no newline in sight: do not hoard
      take_line(partial_);
      partial_.clear();
    }
  }
}

void LogReader::take_line(std::string_view line) {
  if (line.empty()) return;
  LogLevel level = LogLevel::warn;
  std::string text;
  if (line.size() >= 2 && line[0] == drain::kLogMark && line[1] >= '1' && line[1] <= '4') {
    level = static_cast<LogLevel>(line[1] - '0');
    text = line.substr(2);
  } else {
    text = "[rank " + std::to_string(rank_) + "] checkpoint process: " + std::string(line);
  }
  base::write_log_line(level, text);
  if (level > LogLevel::warn) return;
  last_.push_back(std::move(text));
  if (last_.size() > kRemembered) last_.pop_front();
}

std::string LogReader::last_words() const {
  std::string all;
  for (const std::string& line : last_) all += (all.empty() ? "" : " | ") + line;
  return all;
}

}  // namespace ckptring::supervise
