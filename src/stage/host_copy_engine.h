// Copies from host memory, in the calling thread.
#pragma once

#include "stage/copy_engine.h"

namespace ckptring::stage {

/// Any number of threads at once. Never fails, and is done when `copy` returns.
class HostCopyEngine final : public CopyEngine {
 public:
  void copy(std::span<const Copy> copies, CopiesEnded ended) override;
};

}  // namespace ckptring::stage
