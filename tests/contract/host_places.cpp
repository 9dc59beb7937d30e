// States stay where they are, and are the tests' own.
#include "contract/places.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <stdexcept>

namespace ckptring::test {

StateDict placed(const StateDict& state) { return state; }

void train_on(const SaveHandle& /*save*/, const StateDict& /*state*/) {}

void before_step(const SaveHandle& save) { save.staged.wait(); }

c10::Device training_device() { return c10::kCPU; }

at::Tensor repeated_bytes(std::uint64_t bytes, std::uint64_t period) {
  const std::uint64_t mapped = (bytes + 4095) / 4096 * 4096;
  void* const memory =
      ::mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // Linux 6.3; where vm.memfd_noexec is 2, nothing else is allowed.
  constexpr unsigned kNoExecSeal = 0x0008;
  int fd = ::memfd_create("repeated", MFD_CLOEXEC | kNoExecSeal);
  if (fd < 0 && errno == EINVAL) fd = ::memfd_create("repeated", MFD_CLOEXEC);
  bool made = memory != MAP_FAILED && fd >= 0 && ::ftruncate(fd, static_cast<off_t>(period)) == 0;
  for (std::uint64_t at = 0; made && at < mapped; at += period) {
    made = ::mmap(static_cast<std::byte*>(memory) + at, std::min(period, mapped - at),
                  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  }
  if (fd >= 0) (void)::close(fd);
  if (!made) throw std::runtime_error("cannot map so many addresses");
  return at::from_blob(
      memory, {static_cast<std::int64_t>(bytes)},
      [mapped](void* mapping) { (void)::munmap(mapping, mapped); }, at::kByte);
}

}  // namespace ckptring::test
