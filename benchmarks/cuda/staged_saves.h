// Saves of a state on a device by this library, and what they hold.
#pragma once

#include "gpu/devices.h"
#include "support/process.h"
#include "support/work_directory.h"

#include <ckptring/checkpointer.h>

#include <cstdint>
#include <memory>

namespace bench {

/// Seconds since the call.
struct DeviceSaveTimes {
  double returned = 0;     ///< until `save` returned
  double fenced = 0;       ///< for which `fence` held the caller, after that
  double stream_held = 0;  ///< for which the fence held the stream, which had nothing else to do
  double staged = 0;
  double durable = 0;
};

/// Bytes, the most that was seen.
struct DeviceSaveMemory {
  double on_device = 0;    ///< that was no longer free on the device
  double beyond_ring = 0;  ///< of this process and the checkpoint process, and not the ring
};

class StagedSaves {
 public:
  /// Prepared: the ring is as large as the state, populated, and known to the driver after the
  /// first save. Everything outlives this. `state` is on `device`, which nobody else uses.
  StagedSaves(const ckptring::test::Devices& devices, const WorkDirectory& work,
              const ckptring::StateDict& state, std::uint64_t state_bytes, int device);
  ~StagedSaves();

  DeviceSaveTimes save();
  /// After saves.
  DeviceSaveMemory memory() const;

 private:
  const ckptring::test::Devices& devices_;
  const WorkDirectory& work_;
  const ckptring::StateDict& state_;
  const int device_;
  const std::uint64_t free_before_;
  const ProcessMemory memory_before_;
  std::uint64_t ring_bytes_ = 0;
  std::unique_ptr<ckptring::AsyncCheckpointer> checkpointer_;
};

}  // namespace bench
