#include "store/uring_writes.h"

#include "os/new_fd.h"
#include "os/uninherited_fd.h"

#include <ckptring/error.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace ckptring::store {
namespace {

// While nothing is in flight no completion will wake the driver, so a kernel that is short of
// memory is asked again here, and for 100 ms at most.
constexpr int kFlushAttempts = 100;
constexpr std::chrono::milliseconds kFlushPause{1};

}  // namespace

UringWrites::Opened UringWrites::open(int fd, const std::string& path, unsigned depth,
                                      std::uint64_t unit) {
  ::io_uring ring{};
  if (const int result = make(depth, ring); result < 0) return {nullptr, -result};
  try {
    return {std::unique_ptr<WriteQueue>(new UringWrites(ring, fd, path, depth, unit)), 0};
  } catch (...) {
    end(ring);
    throw;
  }
}

int UringWrites::make(unsigned depth, ::io_uring& ring) {
  os::ForksHeld held;
  const os::StandardNumbersTaken taken;
  if (const int result = ::io_uring_queue_init(depth, &ring, 0); result < 0) return result;
  // A sandbox may allow to make one, and nothing else. Asked here, where there is another way.
  const bool usable = ::syscall(SYS_io_uring_enter, ring.ring_fd, 0, 0, 0, nullptr, 0) == 0;
  const int why = usable ? 0 : errno;
  if (!usable || ring.ring_fd <= STDERR_FILENO) {
    ::io_uring_queue_exit(&ring);
    return usable ? -EBADF : -why;
  }
  held.hide(ring.ring_fd);
  // Refused: a forked child keeps some pages that nobody uses any more.
  (void)::io_uring_ring_dontfork(&ring);
  return 0;
}

UringWrites::UringWrites(const ::io_uring& ring, int fd, const std::string& path, unsigned depth,
                         std::uint64_t unit)
    : ring_(ring), fd_(fd), path_(path), unit_(unit), slots_(depth) {
  free_slots_.reserve(depth);
  for (std::size_t slot = depth; slot > 0; --slot) free_slots_.push_back(slot - 1);
}

UringWrites::~UringWrites() {
  // What was never submitted is dropped with the ring.
  while (slots_.size() - free_slots_.size() > ::io_uring_sq_ready(&ring_)) {
    ::io_uring_cqe* completion = nullptr;
    const int result = ::io_uring_wait_cqe(&ring_, &completion);
    if (result < 0) {
      // Only a passing shortage or a signal can be the cause, and the memory must not be let go.
      std::this_thread::sleep_for(kFlushPause);
      continue;
    }
    free_slots_.push_back(static_cast<std::size_t>(::io_uring_cqe_get_data64(completion)));
    ::io_uring_cqe_seen(&ring_, completion);
  }
  end(ring_);
}

void UringWrites::end(::io_uring& ring) {
  auto held = os::ForksHeld::to_forget();
  held.forget(ring.ring_fd);
  ::io_uring_queue_exit(&ring);
}

void UringWrites::submit(std::uint64_t token, std::uint64_t offset, const std::byte* data,
                         std::uint64_t size) {
  const std::size_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot].write = PendingWrite(token, offset, data, size, unit_);
  queue(slot);
  flush();
}

void UringWrites::queue(std::size_t slot) {
  Slot& entry = slots_[slot];
  // The ring has as many entries as there are slots, so there is always one.
  ::io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_);
  if (sqe == nullptr) {
    throw Error(ErrorCode::internal, "write", path_, "io_uring has no free submission entry");
  }
  // The kernel only reads through iov_base here. IORING_OP_WRITEV: older kernels know no other.
  entry.piece = {
      const_cast<std::byte*>(entry.write.data()),  // NOLINT(cppcoreguidelines-pro-type-const-cast)
      entry.write.size()};
  ::io_uring_prep_writev(sqe, fd_, &entry.piece, 1, entry.write.offset());
  ::io_uring_sqe_set_data64(sqe, slot);
}

void UringWrites::flush() {
  for (int attempt = 0; ::io_uring_sq_ready(&ring_) > 0; ++attempt) {
    const int result = ::io_uring_submit(&ring_);
    if (result > 0 || result == -EINTR) continue;
    if (result < 0 && result != -EAGAIN && result != -EBUSY) {
      throw Error::from_errno(-result, "submit to io_uring the writes to", path_);
    }
    const std::size_t unfinished = slots_.size() - free_slots_.size();
    if (unfinished > ::io_uring_sq_ready(&ring_)) return;  // `reap` tries again
    if (attempt >= kFlushAttempts) {
      throw Error::from_errno(EAGAIN, "submit to io_uring the writes to", path_);
    }
    std::this_thread::sleep_for(kFlushPause);
  }
}

void UringWrites::reap(std::vector<Done>& done) {
  // What has been taken from the ring must be told of, whatever memory there is by then.
  done.reserve(done.size() + slots_.size());
  ::io_uring_cqe* completion = nullptr;
  while (::io_uring_peek_cqe(&ring_, &completion) == 0) {
    const auto slot = static_cast<std::size_t>(::io_uring_cqe_get_data64(completion));
    const std::int64_t result = completion->res;
    ::io_uring_cqe_seen(&ring_, completion);
    PendingWrite& write = slots_[slot].write;
    if (write.advance(result) == PendingWrite::Next::again) {
      queue(slot);
      continue;
    }
    done.push_back({write.token(), write.error()});
    free_slots_.push_back(slot);
  }
  flush();
}

}  // namespace ckptring::store
