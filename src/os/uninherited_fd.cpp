#include "os/uninherited_fd.h"

#include <ckptring/error.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace ckptring::os {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<int> descriptors;
};

// Never destroyed: descriptors may be closed by other static destructors.
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

void before_fork() { registry().mutex.lock(); }
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

UninheritedFd::UninheritedFd(UniqueFd fd) : fd_(std::move(fd)) {
  if (!fd_) return;
  watch_forks_once();
  const std::scoped_lock lock(registry().mutex);
  registry().descriptors.push_back(fd_.get());
}

UninheritedFd& UninheritedFd::operator=(UninheritedFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::move(other.fd_);
  }
  return *this;
}

UninheritedFd::~UninheritedFd() { reset(); }

void UninheritedFd::reset() noexcept {
  if (!fd_) return;
  // Both under the lock: no fork comes between them, which would leave the child a descriptor that
  // is in no list, or have it close a number that belongs to somebody else by now.
  const std::scoped_lock lock(registry().mutex);
  std::erase(registry().descriptors, fd_.get());
  fd_.reset();
}

}  // namespace ckptring::os
