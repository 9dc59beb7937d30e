#include "store/thread_writes.h"

#include "os/eventfd.h"

#include <ckptring/error.h>

#include <sys/uio.h>
#include <unistd.h>

#include <chrono>
#include <new>
#include <thread>

namespace ckptring::store {
namespace {

/// Before a write that was turned away is tried again. Not a yield, which takes no time on an idle
/// machine and a whole turn of everybody else's on a busy one.
constexpr std::chrono::microseconds kRetryPause{10};

os::UninheritedFd make_event(const std::string& path) {
  try {
    return os::UninheritedFd::made_by([] { return os::make_eventfd(); });
  } catch (const Error& error) {
    throw Error::from_errno(error.errno_value(), "make an eventfd for writing", path);
  }
}

}  // namespace

ThreadWrites::ThreadWrites(FileSystem& files, int fd, const std::string& path, unsigned threads,
                           std::uint64_t unit, bool dsync)
    : files_(files),
      fd_(fd),
      path_(path),
      unit_(unit),
      rwf_flags_(dsync ? RWF_DSYNC : 0),
      done_event_(make_event(path_)) {
  threads_.reserve(threads);
  // A write that has ended must be told of, whatever memory there is by then.
  done_.reserve(std::size_t{2} * threads);
  try {
    while (threads_.size() < threads) {
      threads_.emplace_back("ckptring-write", os::OwnThread::Priority::foreground,
                            [this] { write_until_stopped(); });
    }
  } catch (const Error& error) {
    // Fewer are slower, not wrong.
    if (threads_.empty()) {
      throw Error(error.code(), "start a thread for writing", path_, error.cause(),
                  error.errno_value());
    }
  } catch (const std::bad_alloc&) {
    if (threads_.empty()) throw;
  }
  // One write waits behind each that is under way, so that no thread has to wait for the driver.
  capacity_ = 2 * threads_.size();
}

ThreadWrites::~ThreadWrites() {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.clear();
    stopping_ = true;
  }
  work_or_stop_.notify_all();
  threads_.clear();
}

void ThreadWrites::submit(std::uint64_t token, std::uint64_t offset, const std::byte* data,
                          std::uint64_t size) {
  {
    const std::scoped_lock lock(mutex_);
    waiting_.emplace_back(token, offset, data, size, unit_);
  }
  ++unreaped_;
  work_or_stop_.notify_one();
}

void ThreadWrites::reap(std::vector<Done>& done) {
  // First the bell, then the list: whoever adds to the list after this look rings again.
  std::uint64_t rings = 0;
  if (uninterrupted([&] { return ::read(done_event_.get(), &rings, sizeof rings); }) < 0 &&
      errno != EAGAIN) {
    throw Error::from_errno(errno, "wait for writes to", path_);
  }
  const std::scoped_lock lock(mutex_);
  done.insert(done.end(), done_.begin(), done_.end());
  unreaped_ -= done_.size();
  done_.clear();
}

void ThreadWrites::write_until_stopped() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_or_stop_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    PendingWrite write = waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    perform(write);
    lock.lock();
    done_.push_back({write.token(), write.error()});
    // Cannot fail short of 2^64 unread rings.
    const std::uint64_t ring = 1;
    (void)uninterrupted([&] { return ::write(done_event_.get(), &ring, sizeof ring); });
  }
}

void ThreadWrites::perform(PendingWrite& write) noexcept {
  PendingWrite::Next next = PendingWrite::Next::again;
  while (next == PendingWrite::Next::again) {
    const ssize_t result =
        files_.pwrite(fd_, write.data(), write.size(), write.offset(), rwf_flags_);
    next = write.advance(result < 0 ? -static_cast<std::int64_t>(errno) : result);
    if (next == PendingWrite::Next::again && result < 0) std::this_thread::sleep_for(kRetryPause);
  }
}

}  // namespace ckptring::store
