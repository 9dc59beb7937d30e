#include "torch/current_stream.h"

#include <ckptring/error.h>
#include <ckptring/save_handle.h>

#include <c10/core/DeviceGuard.h>

namespace ckptring {

void SaveHandle::fence(const c10::Stream& stream) const {
  if (!stream.device().is_cuda()) {
    throw Error(ErrorCode::invalid_argument, "fence a save", "",
                "a stream of device " + stream.device().str() + " is no CUDA stream");
  }
  if (!device_fence) return;
  const c10::DeviceGuard guard(stream.device());
  device_fence(stream.device_index(), torch_state::native_handle(stream));
}

}  // namespace ckptring
