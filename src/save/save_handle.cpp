#include <ckptring/save_handle.h>

namespace ckptring {

void SaveHandle::fence(int device, void* stream) const {
  (void)staged.ready();  // throws in a forked child, which must not come to CUDA
  if (device_fence) device_fence(device, stream);
}

}  // namespace ckptring
