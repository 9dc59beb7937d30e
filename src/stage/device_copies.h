// Everything that staging and loading need of CUDA, without its headers: engines that copy between
// a device and the host, what they wait for, who waits for them, and memory that they can reach.
#pragma once

#include "base/log.h"
#include "stage/copy_engine.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace ckptring::stage {

/// A point in the work of a stream: everything that was enqueued before it.
class StreamPoint {
 public:
  virtual ~StreamPoint() = default;
};

/// Copies in one direction, on a stream of its own. Thread-safe. Streams of others are native
/// handles (`cudaStream_t`). Every function throws Error device_failed with CUDA's own words.
class DeviceCopyEngine : public CopyEngine {
 public:
  /// What is copied from now on is copied after `point`.
  virtual void copy_after(const StreamPoint& point) = 0;

  /// Whatever is enqueued on `stream` from now on runs after every copy begun so far. Holds the
  /// device, not the caller.
  /// @return the point at which those copies have ended
  /// @throws Error invalid_argument if the stream is being captured into a CUDA graph
  virtual std::shared_ptr<StreamPoint> fence(void* stream) = 0;
};

/// Memory of a device. Nothing uses it any more when this goes.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// Only the device may touch it.
  [[nodiscard]] virtual std::byte* data() const noexcept = 0;
};

/// Host memory that devices copy to and from directly as long as this lives.
class PinnedMemory {
 public:
  virtual ~PinnedMemory() = default;
};

/// Blocks until the first `bytes` of some memory are populated, or whoever was to populate them has
/// ended without: then it is for the one that has waited.
using WaitPopulated = std::function<void(const std::stop_token& stop, std::uint64_t bytes)>;

/// The devices of this process. Engines are made when first asked for, and live as long as this.
/// Thread-safe. No call makes a context on a device that it does not work for: a thread whose
/// current device has none is left with the one of the call.
class DeviceCopies {
 public:
  virtual ~DeviceCopies() = default;

  /// @throws Error device_failed
  virtual DeviceCopyEngine& to_host(int device) = 0;
  virtual DeviceCopyEngine& to_device(int device) = 0;
  /// From one part of the device's memory to another.
  virtual DeviceCopyEngine& within(int device) = 0;

  /// @throws Error out_of_memory, device_failed
  virtual std::unique_ptr<DeviceMemory> allocate(int device, std::uint64_t bytes) = 0;

  /// Marks the point that a stream of `device` has reached.
  /// @throws Error device_failed; invalid_argument if the stream is being captured into a CUDA
  ///         graph, whose work runs later or never
  virtual std::shared_ptr<StreamPoint> mark(int device, void* stream) = 0;

  /// Registers `memory` with the driver, in pieces of `piece_bytes`: in the background one after
  /// the other, and each at the latest when a copy needs it. Where the driver refuses, copies take
  /// the way over a small window of pinned memory, and the log says so. No copy is under way when
  /// the result is destroyed, and it is destroyed before `memory` and before this.
  /// @param device  whose context does it; the memory is of use to all
  /// @param wait    before a piece is registered in the background; may be empty
  virtual std::unique_ptr<PinnedMemory> pin(std::span<std::byte> memory, std::uint64_t piece_bytes,
                                            int device, WaitPopulated wait) = 0;

  /// Which copies have begun and not ended, in words, one entry for each stream: "copy from device
  /// 0 (stream 0x...)". For messages: waits for nothing, not even for an engine that is being made.
  [[nodiscard]] virtual std::vector<std::string> under_way() const = 0;
};

/// Null, with the reason in words, if this build has no CUDA, or this machine no device with a
/// driver that fits.
struct FoundDeviceCopies {
  std::unique_ptr<DeviceCopies> copies;
  std::string why_not;
};
/// @throws Error device_failed if there may be one, and CUDA fails to say so
FoundDeviceCopies find_device_copies(const base::LogContext& log);

}  // namespace ckptring::stage
