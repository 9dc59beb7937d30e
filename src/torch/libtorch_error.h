// What libtorch throws, in this library's terms.
#pragma once

#include <ckptring/error.h>

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <string>
#include <utility>

namespace ckptring::torch_state {

/// The code for what failed on `device`: out_of_memory; device_failed on a CUDA device that there
/// is; invalid_argument on a device that cannot be used at all; internal on the host.
ErrorCode code_of(const c10::Error& failure, const c10::Device& device);

/// "copy to device 0" as the copy engines say it, "copy to cpu".
std::string copy_to(const c10::Device& device);

/// Calls `use`, which works on `device` through libtorch.
/// @throws Error with libtorch's own words instead of c10::Error
template <class Use>
auto through_libtorch(const c10::Device& device, const std::string& operation, Use&& use) {
  try {
    return std::forward<Use>(use)();
  } catch (const c10::Error& failure) {
    throw Error(code_of(failure, device), operation, "", failure.what_without_backtrace());
  }
}

}  // namespace ckptring::torch_state
