#include "torch/current_stream.h"

#include "torch/libtorch_error.h"

#include <ckptring/error.h>

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <fmt/format.h>

namespace ckptring::torch_state {
namespace {

/// Calls `use` with the guard of CUDA devices.
template <class Use>
auto with_guard(const char* operation, int device, Use&& use) {
  try {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    return use(guard);
  } catch (const c10::Error& error) {
    throw Error(ErrorCode::device_failed, fmt::format("{} of CUDA device {}", operation, device),
                "", words_of(error));
  }
}

/// The stream on which the calling thread enqueues its work.
c10::Stream current_stream(int device) {
  return with_guard("find the current stream", device, [&](const auto& guard) {
    return guard.getStream(
        c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

}  // namespace

void use_stream(const c10::Stream& stream, const std::function<void(void* native)>& use) {
  with_guard("use a stream", stream.device_index(), [&](const auto& guard) {
    void* const native = guard.getStreamNativeHandle(stream);
    // Made current by libtorch's own means, which know better than to make a context on the device
    // that was current before.
    const c10::DeviceGuard current(stream.device());
    use(native);
  });
}

void wait_for_current_stream(int device) {
  const c10::Stream stream = current_stream(device);
  with_guard("wait for the current stream", device,
             [&](const auto& guard) { guard.synchronizeStream(stream); });
}

void use_current_stream(int device, const std::function<void(void* native)>& use) {
  use_stream(current_stream(device), use);
}

}  // namespace ckptring::torch_state
