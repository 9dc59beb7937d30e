#include "os/new_fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>

namespace ckptring::os {
namespace {

constexpr int kFirst = STDERR_FILENO + 1;

/// Calls `take` with each of the three that is closed. One system call tells of all.
template <class Take>
void for_each_closed(Take&& take) noexcept {
  std::array<::pollfd, kFirst> standard{};
  for (int number = 0; number < kFirst; ++number) {
    standard[static_cast<std::size_t>(number)].fd = number;
  }
  if (::poll(standard.data(), standard.size(), 0) <= 0) return;
  for (const ::pollfd& one : standard) {
    if ((one.revents & POLLNVAL) != 0) take(one.fd);
  }
}

/// Something without a file type, as what stands in for a standard descriptor. What the program
/// may have put there since (by dup2, which asks nobody) has one.
bool stands_in(int fd) noexcept {
  struct ::stat status {};
  return ::fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

}  // namespace

StandardNumbersTaken::StandardNumbersTaken() noexcept {
  for_each_closed([this](int /*number*/) {
    // Involves no file system, which might hang, and refuses to be read and written. Without it,
    // new_fd moves what it makes.
    const int fd = ::epoll_create1(EPOLL_CLOEXEC);
    if (fd >= kFirst) {  // somebody was faster
      (void)::close(fd);
    } else if (fd >= 0) {
      taken_[count_++] = fd;
    }
  });
}

StandardNumbersTaken::~StandardNumbersTaken() {
  if (count_ == 0) return;
  const int before = errno;
  while (count_ > 0) {
    const int fd = taken_[--count_];
    if (stands_in(fd)) (void)::close(fd);
  }
  errno = before;
}

UniqueFd above_standard_numbers(int fd) noexcept {
  UniqueFd made(fd);
  if (fd < 0 || fd >= kFirst) return made;
  UniqueFd moved(::fcntl(fd, F_DUPFD_CLOEXEC, kFirst));
  const int why = errno;
  made.reset();
  errno = why;
  return moved;
}

void reserve_standard_numbers() noexcept {
  // The lowest free number is the next one in turn: no other thread is there yet. Without /dev/null
  // they stay as they are, and StandardNumbersTaken does what it can.
  for_each_closed(
      [](int number) { (void)::open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY); });
}

}  // namespace ckptring::os
