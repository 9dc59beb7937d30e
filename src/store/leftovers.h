// Temporaries of other saves: in use, or left by the dead.
//
// Whoever creates a temporary, and whoever removes dead ones, holds the directory's lock for that
// moment. So nobody ever sees a living save's temporary in the moment between its creation and
// its lock, and the locked temporaries for one final name belong to one checkpointer.
#pragma once

#include "store/file_system.h"
#include "store/save_sink.h"

#include <string>
#include <vector>

namespace ckptring::store {

/// The directory's lock. Movable; released by the destructor.
class DirectoryGuard {
 public:
  enum class Outcome {
    taken,  ///< also where the file system has no locks: then nothing is guarded
    held_elsewhere,
    gone,  ///< there is no such directory (any more)
  };
  /// Waits a few milliseconds at most: the lock is held for a few system calls only.
  /// @throws Error
  Outcome take(FileSystem& files, const std::string& directory);

 private:
  os::UninheritedFd fd_;
};

enum class Removal {
  removed,
  in_use,   ///< somebody has locked it
  gone,     ///< somebody else renamed or removed it
  refused,  ///< cannot be judged or removed: not a file, no permission, no locks here
};

/// Removes the temporary `path` unless it is locked.
/// @throws Error
Removal remove_if_dead(FileSystem& files, const std::string& path);

struct LeftoverScan {
  bool in_use = false;               ///< another save to the same final name is under way
  std::vector<std::string> refused;  ///< paths
};

/// Removes the dead temporaries of other saves to the same final name. Hold the directory's guard.
/// @throws Error
LeftoverScan remove_dead_leftovers(FileSystem& files, const SaveTarget& target);

/// @throws Error busy_elsewhere
[[noreturn]] void report_busy(const SaveTarget& target, double waited_secs);

/// The directory's guard is not to be had, so long that it is no saver who has it.
/// @throws Error io, with EWOULDBLOCK
[[noreturn]] void report_locked(const SaveTarget& target, double waited_secs);

/// A line in the log for each.
void warn_of_refused(const SaveTarget& target, const LeftoverScan& scan);

}  // namespace ckptring::store
