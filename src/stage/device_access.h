// The way to this process's devices, looked for when first needed.
#pragma once

#include "base/log.h"
#include "stage/device_copies.h"

#include <memory>
#include <mutex>
#include <string>

namespace ckptring::stage {

/// Whoever has no tensors on devices never touches CUDA. Thread-safe.
class DeviceAccess {
 public:
  explicit DeviceAccess(base::LogContext log) noexcept : log_(log) {}

  /// Null if there are no devices that can be used. Valid as long as this.
  /// @throws Error device_failed; the next call asks CUDA again
  [[nodiscard]] DeviceCopies* copies() {
    const std::scoped_lock lock(mutex_);
    if (!found_.copies) found_ = find_device_copies(log_);
    return found_.copies.get();
  }
  /// Why `copies()` was null.
  [[nodiscard]] std::string why_not() const {
    const std::scoped_lock lock(mutex_);
    return found_.why_not;
  }

 private:
  const base::LogContext log_;
  mutable std::mutex mutex_;
  FoundDeviceCopies found_;  ///< guarded by mutex_
};

}  // namespace ckptring::stage
