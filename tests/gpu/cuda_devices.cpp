// Those of this machine.
#include "gpu/devices.h"

#include <ATen/Functions.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

namespace ckptring::test {
namespace {

/// Loads libtorch's CUDA part, which nothing here is linked with: it takes seconds, and machines
/// without a driver have no use for it.
/// @return why there are no devices; empty if there are some
std::string load() {
  const auto last_words = [] {
    const char* const words = ::dlerror();
    return std::string(words != nullptr ? words : "unknown reason");
  };
  if (::dlopen("libcuda.so.1", RTLD_NOW) == nullptr) return "no CUDA device: " + last_words();
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return "no CUDA device that libtorch could use: " + last_words();
  }
  const bool any = c10::impl::hasDeviceGuardImpl(c10::kCUDA) &&
                   c10::impl::getDeviceGuardImpl(c10::kCUDA)->deviceCount() > 0;
  return any ? "" : "no CUDA device";
}

c10::Device place(int device) { return {c10::kCUDA, static_cast<c10::DeviceIndex>(device)}; }

}  // namespace

struct Devices::State {
  std::string why_none;
};

Devices::Devices() {
  static const std::string why_none = load();
  state_ = std::make_unique<State>(State{why_none});
}

Devices::~Devices() = default;

int Devices::count() const {
  return state_->why_none.empty() ? c10::impl::getDeviceGuardImpl(c10::kCUDA)->deviceCount() : 0;
}

std::string Devices::why_none() const { return state_->why_none; }

/// For a device of 2024.
std::shared_ptr<void> Devices::keep_busy(int device) const {
  const at::Tensor factor =
      at::ones({4096, 4096}, at::TensorOptions().dtype(at::kFloat).device(place(device)));
  at::Tensor product = at::empty_like(factor);
  for (int i = 0; i < 100; ++i) at::mm_out(product, factor, factor);
  return nullptr;
}

/// A kernel that is asked for an element that is not there ends by a failed assertion.
void Devices::break_device(int device) const {
  const at::Tensor one = at::ones({1}, at::TensorOptions().device(place(device)));
  const at::Tensor nowhere = at::full({1}, 1000, at::TensorOptions().dtype(at::kLong));
  (void)at::index_select(one, 0, nowhere.to(place(device)));
}

std::uint64_t Devices::free_bytes(int device) const {
  return c10::getDeviceAllocator(c10::kCUDA)->getMemoryInfo(place(device).index()).first;
}

}  // namespace ckptring::test
