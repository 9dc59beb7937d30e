// The least that staging can cost: cudaMemcpyAsync of the same bytes into pinned memory, by
// libtorch's own means.
#pragma once

#include "gpu/devices.h"

#include <ATen/core/Tensor.h>
#include <ckptring/state_dict.h>

#include <cstdint>
#include <vector>

namespace bench {

/// All tensors of a state, in walking order.
std::vector<at::Tensor> tensors_of(const ckptring::StateDict& state);

class PinnedCopies {
 public:
  /// `state` is on `device`, and takes as much memory there a second time. `devices` outlives this.
  PinnedCopies(const ckptring::test::Devices& devices, const ckptring::StateDict& state,
               int device);

  /// Seconds of one copy of all bytes. The device is idle before.
  double whole() const;
  /// Seconds of one copy for each tensor.
  double each() const;

  [[nodiscard]] std::uint64_t bytes() const noexcept { return pinned_.nbytes(); }

 private:
  const ckptring::test::Devices& devices_;
  const int device_;
  std::vector<at::Tensor> tensors_;
  at::Tensor flat_;                ///< on the device
  at::Tensor pinned_;              ///< on the host
  std::vector<at::Tensor> parts_;  ///< of the host's, one for each tensor
};

}  // namespace bench
