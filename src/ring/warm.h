// Populating a fresh ring in the background, so that the first save is as quick as any.
#pragma once

#include "base/log.h"
#include "os/own_thread.h"
#include "ring/segment.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>

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
  /// @throws Error out_of_memory if the system allows no more threads
  Warmer(const Segment& segment, int rank);
  /// Stops at the next step.
  ~Warmer();
  Warmer(const Warmer&) = delete;
  Warmer& operator=(const Warmer&) = delete;

  /// Blocks until everything is populated, or nothing more can be. Any thread.
  void wait() const { wait({}, UINT64_MAX); }
  /// The same for the first `bytes` of the blocks, and until `stop`.
  void wait(const std::stop_token& stop, std::uint64_t bytes) const;

 private:
  void run(const Segment& segment, const base::LogContext& log);
  Result populate(const std::stop_token& stop, const Segment& segment, const base::LogContext& log);
  void note(std::uint64_t populated_bytes);

  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  std::uint64_t populated_ = 0;  ///< guarded by mutex_; UINT64_MAX: there will be no more
  std::stop_source stop_;
  os::OwnThread thread_;
};

}  // namespace ckptring::ring
