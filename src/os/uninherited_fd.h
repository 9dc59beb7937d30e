// A descriptor that a forked child does not keep.
//
// Close-on-exec does nothing for children that fork and never exec, such as data loaders. Theirs
// would keep the ring, its bells and its locks alive. While one of these exists, a handler closes
// it in every forked child, and does nothing else there.
#pragma once

#include "os/unique_fd.h"

#include <mutex>
#include <utility>

namespace ckptring::os {

/// While one exists, forks of this process wait: no child comes between the making of a descriptor
/// and its being hidden here, or between a mapping and its MADV_DONTFORK. One at a time in a
/// thread; no UninheritedFd may end meanwhile.
class ForksHeld {
 public:
  ForksHeld();

  /// From now on `fd` is closed in every forked child. At most two for each of these.
  void hide(int fd) noexcept;
  /// Right before `fd` is closed.
  void forget(int fd) noexcept;

 private:
  std::unique_lock<std::mutex> lock_;
};

class UninheritedFd {
 public:
  UninheritedFd() noexcept = default;
  /// An empty `fd` stays empty.
  UninheritedFd(ForksHeld& held, UniqueFd fd) noexcept : fd_(std::move(fd)) {
    if (fd_) held.hide(fd_.get());
  }
  UninheritedFd(UninheritedFd&& other) noexcept = default;
  UninheritedFd& operator=(UninheritedFd&& other) noexcept;
  ~UninheritedFd();

  /// What `make()`, which returns a UniqueFd, makes while forks wait. errno stays as `make` left
  /// it.
  template <class Make>
  static UninheritedFd made_by(Make&& make) {
    ForksHeld held;
    return {held, std::forward<Make>(make)()};
  }

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  void reset() noexcept;

 private:
  UniqueFd fd_;
};

}  // namespace ckptring::os
