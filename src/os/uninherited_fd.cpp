#include "os/uninherited_fd.h"

#include "os/log_handler.h"
#include "os/new_fd.h"

#include <ckptring/error.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace ckptring::os {
namespace {

struct Registry {
  std::mutex mutex;
  // Guarded by mutex.
  std::vector<int> descriptors;
  std::vector<const int*> slots;
  std::uint64_t forks = 0;
  int delaying = 0;  ///< how many make or close a descriptor that is in no list
};

// Never destroyed: descriptors may be closed by other static destructors.
Registry& registry() {
  static Registry& instance = *new Registry;
  return instance;
}

/// In one time that forks are held.
constexpr std::size_t kMostHidden = 2;

/// How long a fork waits for what another thread has begun: longer than that takes even on a busy
/// machine, unless a file server hangs.
constexpr std::chrono::milliseconds kLongestDelay{1000};
constexpr std::chrono::microseconds kLook{100};

void before_fork() {
  const auto enough = std::chrono::steady_clock::now() + kLongestDelay;
  registry().mutex.lock();
  // Not by a condition variable, which would be in the middle of something in the child.
  while (registry().delaying > 0 && std::chrono::steady_clock::now() < enough) {
    registry().mutex.unlock();
    std::this_thread::sleep_for(kLook);
    registry().mutex.lock();
  }
  ++registry().forks;
}
void after_fork_in_parent() { registry().mutex.unlock(); }
void after_fork_in_child() {
  for (const int fd : registry().descriptors) (void)::close(fd);
  registry().descriptors.clear();
  for (const int* const slot : registry().slots) {
    if (*slot >= 0) (void)::close(*slot);
  }
  registry().slots.clear();
  registry().delaying = 0;
  registry().mutex.unlock();
}

void watch_forks_once() {
  // A fork calls the handlers that were registered first last: so it does not hold the log up while
  // it waits here.
  prepare_log_for_forks();
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

ForksHeld::ForksHeld(Nothing /*hidden*/) noexcept : lock_(registry().mutex) {}

std::uint64_t ForksHeld::forks() const noexcept { return registry().forks; }

void ForksHeld::hide(int fd) noexcept { registry().descriptors.push_back(fd); }

void ForksHeld::forget(int fd) noexcept { std::erase(registry().descriptors, fd); }

ForksDelayed::ForksDelayed() {
  watch_forks_once();
  const std::scoped_lock lock(registry().mutex);
  ++registry().delaying;
  forks_before_ = registry().forks;
}

ForksDelayed::~ForksDelayed() {
  const std::scoped_lock lock(registry().mutex);
  --registry().delaying;
}

UninheritedFd& UninheritedFd::operator=(UninheritedFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::move(other.fd_);
    slow_ = other.slow_;
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
  if (!slow_) {
    fd_.reset();
    return;
  }
  ++registry().delaying;
  lock.unlock();
  fd_.reset();
  lock.lock();
  --registry().delaying;
}

HiddenSlot::HiddenSlot(int& slot) : slot_(slot) {
  watch_forks_once();
  slot_ = -1;
  const std::scoped_lock lock(registry().mutex);
  registry().slots.push_back(&slot_);
}

HiddenSlot::~HiddenSlot() {
  const std::scoped_lock lock(registry().mutex);
  std::erase(registry().slots, &slot_);
  if (slot_ >= 0) (void)::close(slot_);
}

UninheritedFd HiddenSlot::take() {
  ForksHeld held;
  UniqueFd fd = above_standard_numbers(std::exchange(slot_, -1));
  if (!fd) throw Error::from_errno(errno, "keep a descriptor", "");
  return {held, std::move(fd)};
}

UninheritedFd open_uninherited(const std::string& path, int flags) {
  return UninheritedFd::made_slowly([&] {
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
