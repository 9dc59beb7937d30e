// A descriptor that a forked child does not keep.
//
// Close-on-exec does nothing for children that fork and never exec, such as data loaders. Theirs
// would keep the ring, its bells and its locks alive. While one of these exists, a handler closes
// it in every forked child, and does nothing else there.
#pragma once

#include "os/unique_fd.h"

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

namespace ckptring::os {

/// While one exists, forks of this process wait: no child comes between the making of a descriptor
/// and its being hidden here, or between a mapping and its MADV_DONTFORK. Only for what never takes
/// long. One at a time in a thread; no UninheritedFd may end meanwhile.
class ForksHeld {
 public:
  ForksHeld();

  /// From now on `fd` is closed in every forked child. At most two for each of these.
  void hide(int fd) noexcept;
  /// Right before `fd` is closed.
  void forget(int fd) noexcept;

  /// How often this process has forked since the first of these.
  [[nodiscard]] std::uint64_t forks() const noexcept;

 private:
  std::unique_lock<std::mutex> lock_;
};

/// How a descriptor is closed.
enum class Closing {
  at_once,  ///< it never takes long, so forks wait meanwhile
  /// It may take as long as a file server does not answer. No fork waits for that: one that comes
  /// in the very moment between giving the descriptor up and closing it leaves it to the child.
  may_wait,
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

  /// What `make()`, which returns a UniqueFd, makes while forks wait: for what never takes long.
  /// errno stays as `make` left it.
  template <class Make>
  static UninheritedFd made_by(Make&& make) {
    ForksHeld held;
    return {held, std::forward<Make>(make)()};
  }

  /// The same for what may take as long as a file server does not answer: no fork waits for it. If
  /// one came meanwhile, its child may have what was made. Nothing has been done with that yet, so
  /// it is dropped, and `make` is called again.
  template <class Make>
  static UninheritedFd made_beside_forks(Make&& make) {
    constexpr int kAttempts = 8;  // a program that forks all the time waits for the next one
    UninheritedFd made;
    for (int attempt = 0; attempt < kAttempts && !made; ++attempt) {
      const std::uint64_t before = ForksHeld().forks();
      UniqueFd fd = make();
      if (!fd) return {};
      ForksHeld held;
      if (held.forks() == before) made = {held, std::move(fd)};
    }
    if (!made) made = made_by(make);
    made.closing_ = Closing::may_wait;
    return made;
  }

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  void reset() noexcept;

 private:
  UniqueFd fd_;
  Closing closing_ = Closing::at_once;
};

/// Opens a file that is none of a save's (those go through store::FileSystem), close-on-exec.
/// Empty, with errno, if that fails.
[[nodiscard]] UninheritedFd open_uninherited(const std::string& path, int flags);

}  // namespace ckptring::os
