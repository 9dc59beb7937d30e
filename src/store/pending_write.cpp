#include "store/pending_write.h"

#include <cerrno>

namespace ckptring::store {
namespace {

// EINTR and EAGAIN pass by themselves. A disk that still takes nothing after so many attempts has
// failed.
constexpr int kMaxStuck = 1000;

}  // namespace

PendingWrite::Next PendingWrite::advance(std::int64_t result) noexcept {
  if (result < 0 && result != -EINTR && result != -EAGAIN) {
    error_ = static_cast<int>(-result);
    return Next::failed;
  }
  if (result > 0) {
    const auto bytes = static_cast<std::uint64_t>(result);
    if (bytes > size()) {
      error_ = EIO;
      return Next::failed;
    }
    if (bytes == size()) {
      written_ = size_;
      return Next::finished;
    }
    // Direct writes go on from a whole unit; what was written behind it is written again.
    const std::uint64_t whole = bytes - bytes % unit_;
    written_ += whole;
    if (whole > 0) {
      stuck_ = 0;
      return Next::again;
    }
  }
  if (++stuck_ < kMaxStuck) return Next::again;
  error_ = result < 0 ? static_cast<int>(-result) : EIO;
  return Next::failed;
}

}  // namespace ckptring::store
