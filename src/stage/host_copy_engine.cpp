#include "stage/host_copy_engine.h"

#include "stage/stream_copy.h"

namespace ckptring::stage {

void HostCopyEngine::copy(std::span<const Copy> copies, CopiesEnded ended) {
  for (const Copy& one : copies) {
    stream_copy(one.to, one.from, static_cast<std::size_t>(one.size));
  }
  order_streamed();
  ended(nullptr);
}

}  // namespace ckptring::stage
