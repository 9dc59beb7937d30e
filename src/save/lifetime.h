// What all parts of an asynchronous checkpointer share.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>

namespace ckptring::save {

/// One lock, one condition for every change, and how far the end has come. What one part waits for
/// is often done by another, and each of these waits also ends when the checkpointer does: so the
/// parts have no locks of their own.
struct Lifetime {
  mutable std::mutex mutex;
  std::condition_variable changed;
  bool closed = false;    ///< guarded by the mutex: nothing is begun any more
  bool given_up = false;  ///< the same; close() has lost its patience: nothing more is staged

  /// With the mutex held.
  /// @throws Error closed
  void require_open(const char* operation) const;
  /// @throws Error aborted
  void check_not_given_up(const std::string& path) const;
};

}  // namespace ckptring::save
