// The bells of one ring and the descriptors that keep them.
#pragma once

#include "os/uninherited_fd.h"
#include "ring/segment.h"

namespace ckptring::ring {

class BellSet {
 public:
  /// @throws Error if the system refuses an eventfd
  BellSet();
  [[nodiscard]] Bells bells() const noexcept { return {data_.get(), space_.get(), result_.get()}; }

 private:
  os::UninheritedFd data_;
  os::UninheritedFd space_;
  os::UninheritedFd result_;
};

}  // namespace ckptring::ring
