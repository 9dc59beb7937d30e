#include "os/new_fd.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <cerrno>

namespace ckptring::os {
namespace {

constexpr int kFirst = STDERR_FILENO + 1;

bool is_open(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }

/// Something without a file type, as what stands in for a standard descriptor. What the program
/// may have put there since (by dup2, which asks nobody) has one.
bool stands_in(int fd) noexcept {
  struct ::stat status {};
  return ::fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

}  // namespace

StandardNumbersTaken::StandardNumbersTaken() noexcept {
  for (int number = 0; number < kFirst; ++number) {
    if (is_open(number)) continue;
    // Involves no file system, which might hang, and refuses to be read and written.
    const int fd = ::epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) return;  // then new_fd moves what it makes
    if (fd >= kFirst) {  // somebody was faster
      (void)::close(fd);
      continue;
    }
    taken_[count_++] = fd;
  }
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
  for (int number = 0; number < kFirst; ++number) {
    if (is_open(number)) continue;
    // The lowest free number is this one: no other thread is there yet. Without /dev/null they stay
    // as they are, and StandardNumbersTaken does what it can.
    if (::open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

}  // namespace ckptring::os
