// The trainer's end of the helper's log: lines from a pipe.
//
// Lines of this library's log start with a mark and their level (drain/drain_protocol.h); whatever
// else arrives (a message of the C library, a custom writer's own output) counts as the helper's
// words too.
#pragma once

#include "os/uninherited_fd.h"

#include <deque>
#include <string>
#include <string_view>

namespace ckptring::supervise {

/// Takes lines apart, hands them to the log, remembers the last ones.
class LogReader {
 public:
  LogReader(os::UninheritedFd pipe, int rank) : pipe_(std::move(pipe)), rank_(rank) {}

  /// Reads what is there; never blocks.
  void pump();
  /// -1 after the helper closed its end.
  [[nodiscard]] int fd() const noexcept { return pipe_.get(); }
  /// The last lines that the helper said on its own or logged as error or warning; "" if none.
  [[nodiscard]] std::string last_words() const;

 private:
  void take_line(std::string_view line);

  os::UninheritedFd pipe_;
  int rank_;
  std::string partial_;
  std::deque<std::string> last_;
};

}  // namespace ckptring::supervise
