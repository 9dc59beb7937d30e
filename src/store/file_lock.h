// flock on a file that others may rename or remove meanwhile.
//
// The lock belongs to the open file description. Writes that a killed process left in flight hold
// on to that description, so whoever gets the lock knows that no such write is under way.
#pragma once

#include "store/file_system.h"

#include <string>

namespace ckptring::store {

enum class LockOutcome {
  taken,
  held_elsewhere,
  unsupported,  ///< this file system has no such locks
};

/// LOCK_EX, or LOCK_SH with `shared`; never waits. Released when the descriptor closes.
/// @throws Error
[[nodiscard]] LockOutcome try_lock(FileSystem& files, int fd, const std::string& path,
                                   bool shared = false);

/// Whether `path` still names the file that is open as `fd`.
/// @throws Error
[[nodiscard]] bool still_named(FileSystem& files, int fd, const std::string& path);

}  // namespace ckptring::store
