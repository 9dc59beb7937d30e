// One save being staged: which blocks are claimed next, who fills them, and when all have ended.
//
//   claim a few blocks ─▶ begin their copies from devices ─▶ copy from the host ─▶ publish them
//                                                    └────── whichever ends last ──────┘
//
// Copies from devices go ahead: up to the file's last byte from a device, as long as blocks are
// free, the next ones are claimed and theirs begun before anything is copied from the host. So a
// device is soon done with the state, whatever the threads here still have to do.
#pragma once

#include "ring/producer.h"
#include "stage/block_fill.h"
#include "stage/default_stager.h"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

namespace ckptring::stage {

class Staging {
 public:
  Staging(ring::Producer& producer, const StageRequest& request, int stop_fd);

  /// Called once by each thread; returns when nothing is left for it to do.
  void work() noexcept;

  /// After every `work` has returned: waits for copies from devices.
  /// @throws what made it end early
  StageResult finish();

 private:
  using Claims = std::vector<ring::BlockClaim>;

  std::shared_ptr<BlockFill> next();
  [[nodiscard]] bool may_claim() const;
  std::shared_ptr<BlockFill> begin_blocks();
  bool wait_for_slot();
  [[nodiscard]] bool from_devices_left() const;
  void stop_claiming();
  void tell_enqueued();
  void end_blocks(Claims& claims, const std::exception_ptr& failure);
  void check_full(Claims& claims);
  void fail(const std::exception_ptr& failure);

  ring::Producer& producer_;
  const StageRequest& request_;
  const int stop_fd_;
  const std::uint64_t devices_end_;  ///< of the file: behind it everything is the host's

  std::mutex claiming_;
  // Guarded by claiming_.
  std::uint64_t claimed_to_ = 0;  ///< of the file
  bool told_enqueued_ = false;
  bool stopped_ = false;
  double stalled_seconds_ = 0;
  std::deque<std::shared_ptr<BlockFill>> for_host_;  ///< their part from the host is not copied yet

  std::mutex ending_;
  std::condition_variable ended_;
  // Guarded by ending_.
  std::size_t fills_out_ = 0;
  std::exception_ptr failure_;  ///< the first one
  std::atomic<bool> has_failed_ = false;
};

}  // namespace ckptring::stage
