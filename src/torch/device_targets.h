// Filling tensors on CUDA devices:
//
//   file ─▶ window of pinned memory ─▶ cudaMemcpyAsync ─▶ tensor
//
// While one thread waits for its window's copy, others read into theirs.
#pragma once

#include "base/log.h"
#include "stage/device_access.h"
#include "store/read_target.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <set>
#include <span>
#include <string>

namespace ckptring::torch_state {

/// The devices that one load fills tensors on. Thread-safe once it is prepared.
class DeviceTargets {
 public:
  explicit DeviceTargets(base::LogContext log) noexcept;
  ~DeviceTargets();
  DeviceTargets(const DeviceTargets&) = delete;
  DeviceTargets& operator=(const DeviceTargets&) = delete;

  /// What is copied to a device from now on is copied after what the calling thread has enqueued on
  /// its current stream there: tensors may still be used there, or their memory be fresh from
  /// libtorch's cache. `windows` are what targets of all devices take from, and outlive this.
  /// @throws Error device_failed
  void prepare(int device, std::span<std::byte> windows);

  /// Whether tensors of `device` can be filled this way.
  [[nodiscard]] bool reach(const c10::Device& device) const;

  /// Bytes of a tensor that was reached.
  [[nodiscard]] std::unique_ptr<store::ReadTarget> make(const at::Tensor& target) const;

 private:
  stage::DeviceAccess access_;
  stage::DeviceCopies* copies_ = nullptr;
  std::set<int> prepared_;
  std::unique_ptr<stage::PinnedMemory> pinned_;
};

}  // namespace ckptring::torch_state
