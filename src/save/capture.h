// Capturing: what of a state may change at once is copied before `save` returns, into memory of the
// checkpointer's own, and staged from there.
//
//   host      the calling thread copies.
//   device    a stream of ours copies within the device. It waits for what the caller's stream has
//             been given so far, and what that is given from now on waits for it: nothing that is
//             enqueued after `save` can overtake, and the host waits for nothing.
#pragma once

#include "save/save_job.h"
#include "stage/capture_selection.h"
#include "stage/device_access.h"

#include <ckptring/config.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace ckptring::save {

/// Memory that captured bytes lie in, at one place.
class CaptureMemory {
 public:
  virtual ~CaptureMemory() = default;
  [[nodiscard]] virtual std::byte* data() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
};

/// Memory of all places, used again from one save to the next. What has become too small stays
/// here: to free memory of a device is to wait for all that the device has to do. Thread-safe.
class CapturePool : public std::enable_shared_from_this<CapturePool> {
 public:
  /// @param devices  makes that of devices; outlives whatever is leased
  explicit CapturePool(stage::DeviceAccess& devices) : devices_(devices) {}

  /// At least `bytes`, until the last copy of the pointer goes. Populated.
  /// @throws Error out_of_memory, device_failed
  [[nodiscard]] std::shared_ptr<CaptureMemory> lease(int place, std::uint64_t bytes);

  /// Frees what is unused and has less than `bytes`. May wait for a device.
  void release_smaller(int place, std::uint64_t bytes);

 private:
  struct Unused {
    int place;
    std::unique_ptr<CaptureMemory> memory;
  };

  /// The smallest one that is large enough; null if there is none.
  std::unique_ptr<CaptureMemory> take_unused(int place, std::uint64_t bytes);
  std::unique_ptr<CaptureMemory> make(int place, std::uint64_t bytes);

  stage::DeviceAccess& devices_;
  std::mutex mutex_;
  std::vector<Unused> unused_;  ///< guarded by mutex_, with room for all that were made
  std::size_t made_ = 0;        ///< guarded by mutex_; that are not freed
};

/// One save at a time; `prepare` and `take` are called by the thread that calls `save`.
class Capture {
 public:
  Capture(const CheckpointStagerConfig& config, stage::DeviceAccess& devices);

  /// What will be captured of this job.
  /// @throws Error unsupported_value, see select_captured
  [[nodiscard]] std::vector<stage::CaptureAt> select(const SaveJob& job) const;

  /// Makes the memory for it, so that the first save need not, and frees what is too small for it.
  /// @throws Error out_of_memory, device_failed
  void prepare(const SaveJob& job, std::span<const stage::CaptureAt> selected);

  /// Copies it. From now on the job's sources are the copies, and its devices are ready when those
  /// have been made.
  /// @throws Error out_of_memory, device_failed, naming a key
  void take(SaveJob& job, std::span<const stage::CaptureAt> selected);

 private:
  void take_from(SaveJob& job, const stage::CaptureAt& from);
  void copy_on_device(SaveJob& job, int device, std::span<const stage::Copy> copies,
                      const std::shared_ptr<CaptureMemory>& memory);

  const stage::CaptureLimits limits_;
  stage::DeviceAccess& devices_;
  const std::shared_ptr<CapturePool> pool_;
};

}  // namespace ckptring::save
