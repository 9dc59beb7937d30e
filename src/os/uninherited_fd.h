// A descriptor that a forked child does not keep.
//
// Close-on-exec does nothing for children that fork and never exec, such as data loaders. Theirs
// would keep the ring, its bells and its locks alive. While one of these exists, a handler closes
// it in every forked child, and does nothing else there.
#pragma once

#include "os/unique_fd.h"

#include <cerrno>
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
  /// One that hides nothing, after others: needs no memory.
  [[nodiscard]] static ForksHeld to_forget() noexcept { return ForksHeld(Nothing{}); }

  /// From now on `fd` is closed in every forked child. At most two for each of these.
  void hide(int fd) noexcept;
  /// Right before `fd` is closed.
  void forget(int fd) noexcept;

  /// How often this process has forked, since forks are watched.
  [[nodiscard]] std::uint64_t forks() const noexcept;

 private:
  struct Nothing {};
  explicit ForksHeld(Nothing) noexcept;

  std::unique_lock<std::mutex> lock_;
};

/// While one exists, a descriptor is made or closed by a call that may take as long as a file
/// server does not answer. Forks wait for its end, but only for a moment: one that goes on without
/// it may leave the child a descriptor of which nobody there knows.
class ForksDelayed {
 public:
  ForksDelayed();
  ~ForksDelayed();
  ForksDelayed(const ForksDelayed&) = delete;
  ForksDelayed& operator=(const ForksDelayed&) = delete;

  /// Whether one went on since this was made.
  [[nodiscard]] bool in_vain(const ForksHeld& held) const noexcept {
    return held.forks() != forks_before_;
  }

 private:
  std::uint64_t forks_before_;
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

  /// The same for what may take as long as a file server does not answer, as closing it may: see
  /// ForksDelayed. If a fork did not wait for the end, its child may have what was made. Nothing
  /// has been done with that yet, so it is dropped, and `make` is called again; EAGAIN in the end.
  template <class Make>
  static UninheritedFd made_slowly(Make&& make) {
    constexpr int kAttempts = 8;  // a program that forks all the time waits for the next one
    UninheritedFd made;
    for (int attempt = 0; attempt < kAttempts && !made; ++attempt) {
      const ForksDelayed delayed;
      UniqueFd fd = make();
      if (!fd) return {};
      ForksHeld held;
      if (!delayed.in_vain(held)) made = {held, std::move(fd)};
    }
    if (!made) {  // forks never wait for ever
      errno = EAGAIN;
      return made;
    }
    made.slow_ = true;
    return made;
  }

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }
  void reset() noexcept;

 private:
  UniqueFd fd_;
  bool slow_ = false;  ///< to close
};

/// While one exists, a forked child closes the descriptor whose number is in `slot`: for a call
/// that writes it there itself, before the descriptor exists, as clone does with a pidfd. Forks
/// wait for nothing meanwhile. `slot` is -1 until then.
class HiddenSlot {
 public:
  explicit HiddenSlot(int& slot);
  ~HiddenSlot();
  HiddenSlot(const HiddenSlot&) = delete;
  HiddenSlot& operator=(const HiddenSlot&) = delete;

  /// The descriptor, from now on by itself; `slot` is -1 again.
  /// @throws Error if it cannot be had as 3 or more; then it is closed
  [[nodiscard]] UninheritedFd take();

 private:
  int& slot_;
};

/// Opens a file that is none of a save's (those go through store::FileSystem), close-on-exec.
/// Empty, with errno, if that fails.
[[nodiscard]] UninheritedFd open_uninherited(const std::string& path, int flags);

}  // namespace ckptring::os
