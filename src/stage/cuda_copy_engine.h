// Copies between a CUDA device and the host, or within a device, on a stream of its own.
//
//   enqueuing thread                   stream                  completion thread
//   copy(a) ─ memcpy async, event A ─▶ a, A, b, B, ...  ─────▶ sleeps until A, tells a's caller,
//   copy(b) ─ memcpy async, event B ─▶                         sleeps until B, ...
//
// Nobody polls, but where CUDA refuses a wait, and nobody waits for the whole device.
#pragma once

#include "os/own_thread.h"
#include "stage/cuda_events.h"
#include "stage/cuda_pinned_memory.h"
#include "stage/cuda_runtime.h"
#include "stage/cuda_window.h"
#include "stage/device_copies.h"

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace ckptring::stage {

class CudaCopyEngine final : public DeviceCopyEngine {
 public:
  enum class Direction { to_host, to_device, within };

  /// `runtime`, `events` (of the device) and `ranges` outlive this.
  /// @throws Error device_failed
  CudaCopyEngine(const CudaRuntime& runtime, CudaEvents& events, const CudaPinnedRanges& ranges,
                 int device, Direction direction);
  /// Waits until every copy has ended.
  ~CudaCopyEngine() override;
  CudaCopyEngine(const CudaCopyEngine&) = delete;
  CudaCopyEngine& operator=(const CudaCopyEngine&) = delete;

  void copy(std::span<const Copy> copies, CopiesEnded ended) override;
  void copy_after(const StreamPoint& point) override;
  std::shared_ptr<StreamPoint> fence(void* stream) override;

  /// Whether a copy has begun and not ended. Never waits for a device.
  [[nodiscard]] bool is_copying() const;
  /// "copy from device 0 (stream 0x...)".
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  /// What the completion thread does once the stream has come to `event`.
  struct Batch {
    CudaEvent event;              ///< null: the end of what was enqueued on the stream
    std::exception_ptr failure;   ///< known when it was enqueued
    std::byte* buffer = nullptr;  ///< of the window, to give back
    std::byte* to = nullptr;      ///< where the buffer's bytes go first; null: nowhere
    std::size_t size = 0;
    CopiesEnded ended;  ///< empty: not the last of its caller's
  };

  void destroy_stream() noexcept;

  // The enqueuing thread.
  void enqueue(Copy copy);
  void enqueue_direct(const Copy& copy);
  void enqueue_through_window(const Copy& copy);
  void submit_direct();
  CudaEvent record_event();
  void hand_over(std::list<Batch> batch) noexcept;
  [[nodiscard]] cudaMemcpyKind kind() const noexcept;

  // The completion thread.
  void complete_all();
  void complete(Batch& batch, std::exception_ptr& failure) noexcept;
  std::exception_ptr wait_for(const Batch& batch) const noexcept;
  void wait_for_stream() const noexcept;
  [[nodiscard]] bool is_context_lost(cudaError_t refusal) const noexcept;

  const CudaRuntime& runtime_;
  CudaEvents& events_;
  const CudaPinnedRanges& ranges_;
  const int device_;
  const Direction direction_;
  cudaStream_t stream_ = nullptr;
  std::string name_;  ///< for messages
  CudaWindow window_;

  std::mutex enqueuing_;  ///< one caller at a time
  // Guarded by enqueuing_: copies that need no window, collected to go in one call.
  std::vector<void*> to_;
  std::vector<const void*> from_;
  std::vector<std::size_t> sizes_;
  bool batches_refused_ = false;  ///< by the driver

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::list<Batch> batches_;  ///< which takes no memory to hand over
  bool completing_ = false;   ///< one that was taken from batches_
  bool stop_ = false;
  os::OwnThread thread_;
};

}  // namespace ckptring::stage
