// Remembers which process made an object: a forked child must not use it.
#pragma once

#include <ckptring/error.h>

#include <unistd.h>

#include <string>

namespace ckptring::os {

class OwnerProcess {
 public:
  /// Whether the calling process is the one that made this.
  [[nodiscard]] bool here() const noexcept { return ::getpid() == pid_; }

  /// @throws Error wrong_process
  void require(const std::string& operation) const {
    if (here()) return;
    throw Error(ErrorCode::wrong_process, operation, "",
                "this process was forked from process " + std::to_string(pid_) +
                    ", which owns the checkpointer");
  }

 private:
  pid_t pid_ = ::getpid();
};

}  // namespace ckptring::os
