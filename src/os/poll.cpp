#include "os/poll.h"

#include <ckptring/error.h>
#include <poll.h>

#include <cerrno>
#include <climits>

namespace ckptring::os {
namespace {

constexpr std::size_t kMost = 8;

timespec until(Deadline deadline) noexcept {
  const std::uint64_t now = monotonic_ns();
  const std::uint64_t left = deadline.ns > now ? deadline.ns - now : 0;
  return {static_cast<time_t>(left / 1'000'000'000u), static_cast<long>(left % 1'000'000'000u)};
}

}  // namespace

bool wait_any(std::span<Waitable> waitables, Deadline deadline) {
  std::array<pollfd, kMost> entries{};
  if (waitables.size() > kMost) {
    throw Error(ErrorCode::internal, "wait", "", "too many descriptors");
  }
  for (std::size_t i = 0; i < waitables.size(); ++i) {
    waitables[i].ready = false;
    entries[i] = {waitables[i].fd, POLLIN, 0};
  }
  for (;;) {
    const bool forever = deadline.ns == UINT64_MAX;
    const timespec left = until(deadline);
    const int count = ::ppoll(entries.data(), waitables.size(), forever ? nullptr : &left, nullptr);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error::from_errno(errno, "wait for an event", "");
    for (std::size_t i = 0; i < waitables.size(); ++i) waitables[i].ready = entries[i].revents != 0;
    return count > 0;
  }
}

bool is_ready(int fd) {
  std::array<Waitable, 1> one{Waitable{fd}};
  return wait_any(one, Deadline{0});
}

}  // namespace ckptring::os
