#include "torch/current_stream.h"

#include <ckptring/error.h>

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

namespace ckptring::torch_state {
namespace {

/// Calls `use` with the guard of CUDA devices.
template <class Use>
auto with_guard(const char* operation, Use&& use) {
  try {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    return use(guard);
  } catch (const c10::Error& error) {
    throw Error(ErrorCode::device_failed, operation, "", error.what_without_backtrace());
  }
}

}  // namespace

void* native_handle(const c10::Stream& stream) {
  return with_guard("find the native handle of a CUDA stream",
                    [&](const auto& guard) { return guard.getStreamNativeHandle(stream); });
}

c10::Stream current_stream(int device) {
  return with_guard("find the current CUDA stream", [&](const auto& guard) {
    return guard.getStream(
        c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)));
  });
}

std::vector<save::DeviceState> mark_devices(const std::set<int>& devices,
                                            stage::DeviceCopies& copies) {
  std::vector<save::DeviceState> states;
  for (const int number : devices) {
    const c10::Stream stream = current_stream(number);
    // Made current by libtorch's own means, which know better than to make a context on the device
    // that was current before.
    const c10::DeviceGuard guard(stream.device());
    states.push_back({number, copies.mark(number, native_handle(stream))});
  }
  return states;
}

}  // namespace ckptring::torch_state
