#include "handoff/descriptor_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace bench {
namespace {

using ckptring::os::UniqueFd;

constexpr int kPipeBytes = 1 << 20;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Words written to an eventfd are added up there; read, the sum is taken out.
WayThrough make_eventfd_way() {
  UniqueFd in(::eventfd(0, EFD_CLOEXEC));
  if (!in) fail("make an eventfd");
  UniqueFd out(::fcntl(in.get(), F_DUPFD_CLOEXEC, 0));
  if (!out) fail("duplicate an eventfd");
  return {std::move(in), std::move(out)};
}

WayThrough make_way(DescriptorPingPong::Over over) {
  switch (over) {
    case DescriptorPingPong::Over::pipes:
      return make_pipe();
    case DescriptorPingPong::Over::sockets:
      return make_socket();
    case DescriptorPingPong::Over::eventfds:
      break;
  }
  return make_eventfd_way();
}

}  // namespace

WayThrough make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("make a pipe");
  WayThrough way{UniqueFd(ends[1]), UniqueFd(ends[0])};
  // Refused where the user has too much in pipes already; a smaller one does the same, slower.
  (void)::fcntl(way.in.get(), F_SETPIPE_SZ, kPipeBytes);
  return way;
}

WayThrough make_socket() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail("make a pair of sockets");
  }
  return {UniqueFd(ends[1]), UniqueFd(ends[0])};
}

void write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ::ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write to the other side");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void read_all(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ::ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read from the other side");
    if (got == 0) throw std::runtime_error("the other side is gone");
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

DescriptorChannel::DescriptorChannel(const Shape& shape, WayThrough way)
    : shape_(shape), way_(std::move(way)) {}

DescriptorPingPong::DescriptorPingPong(Over over, Sleep sleep)
    : sleep_(sleep), questions_(make_way(over)), answers_(make_way(over)) {}

void DescriptorPingPong::tell(const WayThrough& way) {
  const std::uint64_t one = 1;
  write_all(way.in.get(), std::as_bytes(std::span(&one, 1)));
}

void DescriptorPingPong::hear(const WayThrough& way) const {
  if (sleep_ == Sleep::in_poll) {
    ::pollfd entry{way.out.get(), POLLIN, 0};
    while (::poll(&entry, 1, -1) < 0) {
      if (errno != EINTR) fail("wait for the other side");
    }
  }
  std::uint64_t word = 0;
  read_all(way.out.get(), std::as_writable_bytes(std::span(&word, 1)));
}

}  // namespace bench
