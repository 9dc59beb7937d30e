// That there is CUDA, for the parts of libtorch that ask before they use it: backward passes do.
#include "support/fake_cuda_torch.h"
#include "support/fake_cuda_torch_memory.h"
#include "support/fake_cuda_torch_streams.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace ckptring::test::fake_cuda {
namespace {

class Hooks final : public at::CUDAHooksInterface {
 public:
  explicit Hooks(at::CUDAHooksArgs /*none*/) {}

  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return deviceCount() > 0; }
  bool hasCUDA() const override { return isAvailable(); }
  bool hasPrimaryContext(at::DeviceIndex device) const override {
    const FakeCuda* const cuda = FakeCuda::current();
    return cuda != nullptr && cuda->contexts().contains(device);
  }

  // Random numbers are drawn on the host, by whichever device.
  const at::Generator& getDefaultGenerator(at::DeviceIndex /*device*/) const override {
    static const at::Generator generator = at::detail::createCPUGenerator();
    return generator;
  }

  at::DeviceIndex deviceCount() const override { return guard().deviceCount(); }
  int getNumGPUs() const override { return deviceCount(); }
  at::DeviceIndex current_device() const override { return test::current_device().index(); }
  at::DeviceIndex getCurrentDevice() const override { return current_device(); }
  void setCurrentDevice(at::DeviceIndex device) const override {
    guard().setDevice(cuda_device(device));
  }
  at::DeviceIndex exchangeDevice(at::DeviceIndex device) const override {
    return guard().exchangeDevice(cuda_device(device)).index();
  }
  at::DeviceIndex maybeExchangeDevice(at::DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator(); }
  bool isPinnedPtr(const void* memory) const override {
    const FakeCuda* const cuda = FakeCuda::current();
    return cuda != nullptr && cuda->is_pinned(memory);
  }

 private:
  static const c10::impl::DeviceGuardImplInterface& guard() {
    return *c10::impl::getDeviceGuardImpl(c10::kCUDA);
  }
};

// The name that libtorch looks for.
const at::RegistererCUDAHooksRegistry registerer(
    "CUDAHooks", at::CUDAHooksRegistry(), at::RegistererCUDAHooksRegistry::DefaultCreator<Hooks>);

}  // namespace
}  // namespace ckptring::test::fake_cuda
