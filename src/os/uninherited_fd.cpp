#include "os/uninherited_fd.h"

#include "os/new_fd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <mutex>
#include <vector>

namespace ckptring::os {
namespace {

struct Registry {
  std::mutex mutex;
  // Guarded by mutex.
  std::vector<int> descriptors;
  std::uint64_t forks = 0;
};

// Never destroyed: descriptors may be closed by other static destructors.
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

/// In one time that forks are held.
constexpr std::size_t kMostHidden = 2;

void before_fork() {
  registry().mutex.lock();
  ++registry().forks;
}
void after_fork_in_parent() { registry().mutex.unlock(); }
void after_fork_in_child() {
  for (const int fd : registry().descriptors) (void)::close(fd);
  registry().descriptors.clear();
  registry().mutex.unlock();
}

void watch_forks_once() {
  static const int result =
      ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  if (result != 0) throw Error::from_errno(result, "watch for forks", "");
}

}  // namespace

ForksHeld::ForksHeld() {
  watch_forks_once();
  lock_ = std::unique_lock(registry().mutex);
  // Whoever has made a descriptor must be able to hide it.
  std::vector<int>& descriptors = registry().descriptors;
  if (descriptors.capacity() - descriptors.size() < kMostHidden) {
    descriptors.reserve(2 * descriptors.size() + kMostHidden);
  }
}

std::uint64_t ForksHeld::forks() const noexcept { return registry().forks; }

void ForksHeld::hide(int fd) noexcept { registry().descriptors.push_back(fd); }

void ForksHeld::forget(int fd) noexcept { std::erase(registry().descriptors, fd); }

UninheritedFd& UninheritedFd::operator=(UninheritedFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::move(other.fd_);
    closing_ = other.closing_;
  }
  return *this;
}

UninheritedFd::~UninheritedFd() { reset(); }

void UninheritedFd::reset() noexcept {
  if (!fd_) return;
  // Both under the lock: no fork comes between them, which would leave the child a descriptor that
  // is in no list, or have it close a number that belongs to somebody else by now.
  std::unique_lock lock(registry().mutex);
  std::erase(registry().descriptors, fd_.get());
  if (closing_ == Closing::may_wait) lock.unlock();
  fd_.reset();
}

UninheritedFd open_uninherited(const std::string& path, int flags) {
  return UninheritedFd::made_beside_forks([&] {
    return new_fd([&] {
      int fd = -1;
      do {
        fd = ::open(path.c_str(), flags | O_CLOEXEC);
      } while (fd < 0 && errno == EINTR);
      return fd;
    });
  });
}

}  // namespace ckptring::os
