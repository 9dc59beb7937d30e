#include "process/log_pipe.h"

#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

namespace ckptring::process {
namespace {

constexpr char kMark = '\x01';
constexpr std::size_t kLongestLine = 4000;  // below PIPE_BUF, so that lines stay whole
constexpr std::size_t kRemembered = 5;

/// Set before the sink is, whose SINK edge publishes it.
int pipe_of_this_process = -1;

bool write_to_pipe(LogLevel level, std::string_view line) {
  std::string text{kMark, static_cast<char>('0' + static_cast<int>(level))};
  text += line.substr(0, kLongestLine);
  text += '\n';
  while (::write(pipe_of_this_process, text.data(), text.size()) < 0 && errno == EINTR) {
  }
  return true;
}

}  // namespace

void log_to_pipe(int fd) {
  // A full pipe must not stop the drain; if the flag cannot be set, neither can anything be lost.
  (void)::fcntl(fd, F_SETFL, O_NONBLOCK);
  pipe_of_this_process = fd;
  base::set_log_sink(write_to_pipe);
}

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
    if (partial_.size() > kLongestLine) {  // no newline in sight: do not hoard
      take_line(partial_);
      partial_.clear();
    }
  }
}

void LogReader::take_line(std::string_view line) {
  if (line.empty()) return;
  LogLevel level = LogLevel::warn;
  std::string text;
  if (line.size() >= 2 && line[0] == kMark && line[1] >= '1' && line[1] <= '4') {
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

}  // namespace ckptring::process
