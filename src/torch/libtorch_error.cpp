#include "torch/libtorch_error.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <fmt/format.h>

#include <string_view>

namespace ckptring::torch_state {
namespace {

bool is_there(const c10::Device& device) {
  return c10::impl::hasDeviceGuardImpl(device.type()) &&
         device.index() < c10::impl::getDeviceGuardImpl(device.type())->deviceCount();
}

}  // namespace

std::string words_of(const c10::Error& failure) {
  const std::string_view words = failure.what_without_backtrace();
  return std::string(words.substr(0, words.find('\n')));
}

bool is_out_of_memory(const c10::Error& failure) {
  // The host's allocator throws the kind of error that everything throws.
  const std::string_view words = failure.what_without_backtrace();
  return dynamic_cast<const c10::OutOfMemoryError*>(&failure) != nullptr ||
         words.find("DefaultCPUAllocator: ") != std::string_view::npos;
}

ErrorCode code_of(const c10::Error& failure, const c10::Device& device) {
  if (is_out_of_memory(failure)) return ErrorCode::out_of_memory;
  if (device.is_cpu()) return ErrorCode::internal;
  return device.is_cuda() && is_there(device) ? ErrorCode::device_failed
                                              : ErrorCode::invalid_argument;
}

std::string copy_to(const c10::Device& device) {
  return device.is_cuda() ? fmt::format("copy to device {}", device.index())
                          : fmt::format("copy to {}", device.str());
}

}  // namespace ckptring::torch_state
