// What both kinds of devices have in common: libtorch's interface to them.
#include "gpu/devices.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace ckptring::test {
namespace {

c10::impl::VirtualGuardImpl guard() { return c10::impl::VirtualGuardImpl(c10::kCUDA); }

c10::Device device_of(int number) { return {c10::kCUDA, static_cast<c10::DeviceIndex>(number)}; }

}  // namespace

c10::Stream Devices::current_stream(int device) const {
  return guard().getStream(device_of(device));
}

c10::Stream Devices::new_stream(int device) const {
  return guard().getStreamFromGlobalPool(device_of(device));
}

void Devices::synchronise(const c10::Stream& stream) const { guard().synchronizeStream(stream); }

}  // namespace ckptring::test
