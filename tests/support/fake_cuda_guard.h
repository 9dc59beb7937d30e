// Tells the host that it has touched device memory, instead of a bare segmentation fault.
#pragma once

#include <cstddef>

namespace ckptring::test::fake_cuda {

/// While it lives, a host access to this address range ends the process with a message on stderr
/// that names the address, the device and the range. Faults elsewhere go where they went before.
class HostAccessGuard {
 public:
  HostAccessGuard(int device, const std::byte* begin, std::size_t bytes);
  ~HostAccessGuard();
  HostAccessGuard(const HostAccessGuard&) = delete;
  HostAccessGuard& operator=(const HostAccessGuard&) = delete;

 private:
  std::size_t slot_;
};

}  // namespace ckptring::test::fake_cuda
