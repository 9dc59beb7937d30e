#include "os/eventfd.h"

#include "os/new_fd.h"

#include <ckptring/error.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>

namespace ckptring::os {

UniqueFd make_eventfd() {
  UniqueFd fd = new_fd([] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
  if (!fd) throw Error::from_errno(errno, "create an eventfd", "");
  return fd;
}

void ring_bell(int eventfd) noexcept {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full, so the bell is ringing already.
  while (::write(eventfd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void clear_bell(int eventfd) noexcept {
  std::uint64_t count = 0;
  // EAGAIN means that it was not ringing.
  while (::read(eventfd, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

}  // namespace ckptring::os
