#include "drain/log_to_pipe.h"

#include "base/log.h"
#include "drain/drain_protocol.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

namespace ckptring::drain {
namespace {

/// Set before the sink is, whose SINK edge publishes it.
int pipe_of_this_process = -1;

bool write_to_pipe(LogLevel level, std::string_view line) {
  std::string text{kLogMark, static_cast<char>('0' + static_cast<int>(level))};
  text += line.substr(0, kLongestLogLine);
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

}  // namespace ckptring::drain
