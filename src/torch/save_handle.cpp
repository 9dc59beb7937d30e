#include "torch/current_stream.h"

#include <ckptring/error.h>
#include <ckptring/save_handle.h>

namespace ckptring {

void SaveHandle::fence(const c10::Stream& stream) const {
  if (!stream.device().is_cuda()) {
    throw Error(ErrorCode::invalid_argument, "fence a save", "",
                "a stream of device " + stream.device().str() + " is no CUDA stream");
  }
  if (!device_fence) return;
  (void)staged.ready();  // throws in a forked child, which must not come to CUDA
  torch_state::use_stream(stream,
                          [&](void* native) { device_fence(stream.device_index(), native); });
}

}  // namespace ckptring
