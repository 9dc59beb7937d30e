// The way to this process's devices, looked for when first needed.
#pragma once

#include "base/log.h"
#include "stage/device_copies.h"

#include <unistd.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::stage {

/// Whoever has no tensors on devices never touches CUDA. Thread-safe. In a forked child it may only
/// be destroyed, which there does nothing: CUDA and all threads are the parent's.
class DeviceAccess {
 public:
  explicit DeviceAccess(base::LogContext log) noexcept : log_(log) {}
  ~DeviceAccess() {
    if (::getpid() != owner_)
      (void)found_.copies.release();  // NOLINT(bugprone-unused-return-value)
  }
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;

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
  /// As DeviceCopies::under_way. Asks CUDA nothing.
  [[nodiscard]] std::vector<std::string> under_way() const {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    return lock && found_.copies ? found_.copies->under_way() : std::vector<std::string>{};
  }

 private:
  const pid_t owner_ = ::getpid();
  const base::LogContext log_;
  mutable std::mutex mutex_;
  FoundDeviceCopies found_;  ///< guarded by mutex_
};

}  // namespace ckptring::stage
