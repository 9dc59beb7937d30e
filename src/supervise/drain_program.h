// The helper program: where it lies, what it is started with, and that it stays the same one.
#pragma once

#include "os/uninherited_fd.h"

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::supervise {

/// What a helper can be started from.
struct DrainExecutable {
  std::string path;
  /// The same, open; null for a script, whose interpreter opens the path.
  std::shared_ptr<const os::UninheritedFd> file;
};

/// Of one checkpointer, for all of its rings. Thread-safe.
///
/// The environment is read once, in the constructor, so in a thread of the caller's: whoever starts
/// a helper later may do so while another thread changes the environment.
class DrainProgram {
 public:
  /// To be found at `configured` if that is not empty; else at CKPTRING_DRAIN of the environment;
  /// else as ckptring-drain beside the object file that holds this code (the shared library, or the
  /// program that it is linked into), or in ../libexec/ckptring/ of that. Never in PATH or the
  /// current folder. It is not looked for before it is to be started.
  explicit DrainProgram(const std::string& configured);

  /// What to start now: the one that was kept, else what lies there by now.
  /// @throws Error process_failed naming the places looked at; invalid_argument for a relative path
  [[nodiscard]] DrainExecutable executable() const;

  /// It has become ready once. From now on it is the one that is started, also if an upgrade puts
  /// another one in its place meanwhile: that may speak another version. (A script is read anew
  /// each time.)
  void keep(const DrainExecutable& executable);

  /// For the program, "NAME=value". One that is named, so perhaps the user's own, may need
  /// credentials, and has all but LD_PRELOAD; one that was found needs nothing but its libraries.
  [[nodiscard]] const std::vector<std::string>& environment() const noexcept {
    return environment_;
  }

 private:
  [[nodiscard]] std::string locate() const;

  std::string named_by_;             ///< in words; "": nobody has named it
  std::vector<std::string> places_;  ///< one if it is named
  std::vector<std::string> environment_;
  mutable std::mutex mutex_;
  DrainExecutable kept_;  ///< guarded by mutex_
};

}  // namespace ckptring::supervise
