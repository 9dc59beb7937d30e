// Fills blocks and writes them in one thread, without a ring: the sync path between begin and
// commit.
#pragma once

#include "os/uninherited_fd.h"
#include "save/private_blocks.h"
#include "save/save_job.h"
#include "store/block_drain.h"
#include "store/drain_tables.h"
#include "store/save_sink.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <vector>

namespace ckptring::save {

/// The tables that the ring's plan area holds on the other path.
class PrivateTables {
 public:
  explicit PrivateTables(const plan::FilePlan& plan);
  [[nodiscard]] const store::DrainTables& tables() const noexcept { return tables_; }

 private:
  std::vector<std::uint64_t> memory_;
  store::DrainTables tables_;
};

/// Writes submitted together end together, so a queue that is refilled block by block runs dry
/// while it is refilled. Hence blocks are filled ahead while the queue is full.
class InlineDrain {
 public:
  /// @param devices  null if no source is on a device. All outlive this
  InlineDrain(const SaveJob& job, store::SaveSink& sink, PrivateBlocks& blocks,
              stage::DeviceCopies* devices);
  /// Waits for copies from devices. Writes may still be in flight: see SaveSink::abort.
  ~InlineDrain();
  InlineDrain(const InlineDrain&) = delete;
  InlineDrain& operator=(const InlineDrain&) = delete;

  /// Returns when every block's write has ended.  @throws Error
  void run();

 private:
  /// A block that is being filled. Shared with those who fill it.
  struct Filling {
    store::Extent extent;
    std::shared_ptr<const os::UninheritedFd> bell;  ///< rung when a device has ended
    std::exception_ptr failure;                     ///< before `ended` is set
    std::atomic<bool> ended = false;
  };

  void fill_next();
  bool take_filled();
  void submit_filled();
  bool reap();
  void wait();

  const SaveJob& job_;
  store::SaveSink& sink_;
  PrivateBlocks& blocks_;
  stage::DeviceCopies* const devices_;
  const std::uint64_t total_;
  PrivateTables tables_;
  store::BlockDrain drain_;
  std::shared_ptr<const os::UninheritedFd> filled_bell_;  ///< null without devices
  std::deque<std::shared_ptr<Filling>> filling_;          ///< in file order
  std::deque<store::Extent> filled_;  ///< final, in file order, not submitted yet
  std::uint64_t filled_to_ = 0;
  std::size_t in_flight_ = 0;
  std::vector<std::uint64_t> done_;
};

}  // namespace ckptring::save
