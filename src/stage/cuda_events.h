// Events of one device, made once and used again.
#pragma once

#include "stage/cuda_runtime.h"
#include "stage/device_copies.h"

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace ckptring::stage {

class CudaEvents;

/// An event on loan; goes back by itself. May be empty.
class CudaEvent {
 public:
  CudaEvent() = default;
  CudaEvent(CudaEvents& owner, cudaEvent_t event) noexcept : owner_(&owner), event_(event) {}
  CudaEvent(CudaEvent&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)),
        event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(event_, other.event_);
    return *this;
  }
  ~CudaEvent();
  [[nodiscard]] cudaEvent_t get() const noexcept { return event_; }
  explicit operator bool() const noexcept { return event_ != nullptr; }

 private:
  CudaEvents* owner_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

/// Thread-safe. Whoever waits for one sleeps (cudaEventBlockingSync).
class CudaEvents {
 public:
  CudaEvents(const CudaRuntime& runtime, int device) noexcept
      : runtime_(runtime), device_(device) {}
  /// All of them are back.
  ~CudaEvents();
  CudaEvents(const CudaEvents&) = delete;
  CudaEvents& operator=(const CudaEvents&) = delete;

  /// Records what `stream`, of the same device, has been given so far. The event is used again once
  /// it is back: what waits for it in a stream by then waits for what it was recorded for before.
  /// @param operation  for messages; names device and stream
  /// @throws Error device_failed
  CudaEvent record(cudaStream_t stream, const std::string& operation);

 private:
  friend class CudaEvent;
  /// One that nobody waits for. The device is current.
  CudaEvent take(const std::string& operation);
  void give_back(cudaEvent_t event) noexcept;

  const CudaRuntime& runtime_;
  const int device_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::size_t made_ = 0;
  std::vector<cudaEvent_t> unused_;  ///< room for all that were made
};

class CudaStreamPoint final : public StreamPoint {
 public:
  explicit CudaStreamPoint(CudaEvent event) noexcept : event_(std::move(event)) {}
  [[nodiscard]] cudaEvent_t event() const noexcept { return event_.get(); }

 private:
  CudaEvent event_;
};

}  // namespace ckptring::stage
