// Sleeping until the peer has moved, without lost wake-ups and without system calls while the
// peer is awake (edge DOORBELL of layout.h).
#pragma once

#include "os/eventfd.h"
#include "os/poll.h"

#include <ckptring/error.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <span>

namespace ckptring::ring {

/// The waker's half. Call after the position that the sleeper waits for was stored seq_cst.
inline void ring_if_asleep(const std::atomic<std::uint32_t>& sleeping, int bell) noexcept {
  // DOORBELL: ordered behind the caller's seq_cst store of the position.
  if (sleeping.load(std::memory_order_seq_cst) != 0) os::ring_bell(bell);
}

/// The sleeper's half: returns once `moved()` holds, one of `others` is ready, or the deadline
/// has passed. `moved` must load the positions seq_cst. `others` are marked as by os::wait_any.
/// @return whether `moved()` holds.  @throws Error
template <class Moved>
bool sleep_until(std::atomic<std::uint32_t>& sleeping, int bell, Moved&& moved,
                 std::span<os::Waitable> others, os::Deadline deadline) {
  constexpr std::size_t kMostOthers = 4;
  if (others.size() > kMostOthers) {
    throw Error(ErrorCode::internal, "sleep", "", "too many descriptors");
  }
  std::array<os::Waitable, kMostOthers + 1> all{};
  all[0].fd = bell;
  std::copy(others.begin(), others.end(), all.begin() + 1);
  const std::span<os::Waitable> used(all.data(), others.size() + 1);
  for (;;) {
    // DOORBELL: the flag before the look, so that a peer that moves after the look sees it.
    sleeping.store(1, std::memory_order_seq_cst);
    bool holds = moved();
    bool stop = holds;
    if (!holds) {
      stop = !os::wait_any(used, deadline);
      // The bell is cleared before the next look, so a ring in between is not lost.
      if (all[0].ready) os::clear_bell(bell);
      for (std::size_t i = 0; i < others.size(); ++i) {
        others[i].ready = used[i + 1].ready;
        stop = stop || others[i].ready;
      }
    }
    // DOORBELL: a late ring only makes the next sleep end early.
    sleeping.store(0, std::memory_order_seq_cst);
    if (holds) return true;
    if (stop) return moved();
  }
}

}  // namespace ckptring::ring
