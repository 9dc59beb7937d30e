// Populating a fresh ring in the background, so that the first save is as quick as any.
#pragma once

#include "ring/segment.h"

#include <atomic>
#include <cstdint>
#include <thread>

namespace ckptring::ring {

/// Allocates the blocks' pages in steps, as huge pages wherever that works. Never writes: a save
/// may be staged meanwhile.
class Warmer {
 public:
  /// What was got.
  struct Result {
    std::uint64_t populated_bytes = 0;
    std::uint64_t huge_bytes = 0;  ///< of these, in pages of 2 MiB
    double seconds = 0;
  };

  /// Starts at once. The segment must outlive this.
  Warmer(const Segment& segment, int rank);
  /// Stops at the next step.
  ~Warmer();
  Warmer(const Warmer&) = delete;
  Warmer& operator=(const Warmer&) = delete;

  /// Blocks until everything is populated, or nothing more can be. Any thread.
  void wait() noexcept { done_.wait(false, std::memory_order_acquire); }

 private:
  void run(int fd, SegmentView segment, int rank);

  std::atomic<bool> stop_{false};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace ckptring::ring
