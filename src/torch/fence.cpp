#include "torch/current_stream.h"

#include <ckptring/error.h>
#include <ckptring/torch/fence.h>

namespace ckptring {

void fence_stream(const SaveHandle& save, const c10::Stream& stream) {
  if (!stream.device().is_cuda()) {
    throw Error(ErrorCode::invalid_argument, "fence a save", "",
                "a stream of device " + stream.device().str() + " is no CUDA stream");
  }
  if (!save.device_fence) return;
  (void)save.staged.ready();  // throws in a forked child, which must not come to CUDA
  torch_state::use_stream(stream, [&](void* native) { save.fence(stream.device_index(), native); });
}

}  // namespace ckptring
