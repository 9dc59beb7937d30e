// Whether tensors change before a save has read them.
#pragma once

#include "save/save_job.h"

#include <exception>
#include <mutex>
#include <set>

namespace ckptring::save {

/// Looks at a place until its tensors may change: those of a device until somebody calls `fence`
/// for it, since what is enqueued afterwards comes after the save; all others until everything is
/// staged. What is found fails the save. Thread-safe.
class ChangeWatch {
 public:
  /// @param job  outlives what is looked at: until `end`
  explicit ChangeWatch(const SaveJob& job) : job_(&job) {}

  /// Right before `fence` lets a device's tensors change.
  void at_fence(int device);

  /// After the last copy, before the save is sealed.
  /// @throws Error changed_while_staging, also what was found at a fence
  void before_sealing();

  /// The save's tensors are let go; nothing is looked at any more.
  void end();

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  const SaveJob* job_;  ///< null: nothing is looked at
  std::set<int> fenced_;
  std::exception_ptr found_;
};

}  // namespace ckptring::save
