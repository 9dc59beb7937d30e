// A descriptor that a forked child does not keep.
//
// Close-on-exec does nothing for children that fork and never exec, such as data loaders. Theirs
// would keep the ring, its bells and its locks alive. While one of these exists, a handler closes
// it in every forked child, and does nothing else there.
#pragma once

#include "os/unique_fd.h"

namespace ckptring::os {

class UninheritedFd {
 public:
  UninheritedFd() noexcept = default;
  explicit UninheritedFd(UniqueFd fd);
  UninheritedFd(UninheritedFd&& other) noexcept = default;
  UninheritedFd& operator=(UninheritedFd&& other) noexcept;
  ~UninheritedFd();

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  void reset() noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace ckptring::os
