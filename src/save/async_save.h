// The asynchronous path: stages jobs into the ring one after the other and keeps the checkpoint
// process alive until each is durable.
#pragma once

#include "save/save_job.h"
#include "stage/device_access.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_handle.h>
#include <ckptring/save_report.h>

#include <chrono>
#include <memory>
#include <vector>

namespace ckptring::save {

/// Thread-safe. Throws Error wrong_process in a forked child, closed after close().
class AsyncSave {
 public:
  /// Starts the checkpoint process without waiting for it.
  /// @throws Error invalid_argument, out_of_memory; permission or io if the system refuses what a
  ///         ring is made of
  AsyncSave(const CheckpointerConfig& config, RankInfo rank);
  /// Waits until what was begun is staged, at most subprocess_shutdown_timeout_secs without
  /// progress, and looks for replaced files, at most kLastLookSecs. Where a device hangs, what it
  /// may still use is left in memory for ever.
  ~AsyncSave();
  AsyncSave(const AsyncSave&) = delete;
  AsyncSave& operator=(const AsyncSave&) = delete;

  /// Waits for room among `max_saves_in_flight`, then hands the job to the staging thread; with
  /// use_async_staging false, also waits until it is staged. Call `check_usable` before planning.
  SaveHandle submit(SaveJob job);

  /// Throws what `save` must throw before planning: closed, wrong_process, and with
  /// throw_previous_failure the unfetched failure of an earlier save.
  void check_usable();

  /// Where the job's DeviceState come from.
  [[nodiscard]] stage::DeviceAccess& devices();

  /// Sizes the automatic ring for this job, now, and populates it in the background; makes the
  /// memory for what `submit` will capture.
  PrepareReport prepare(const SaveJob& job);
  void ready();
  void wait_prefaulted();
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline);
  void close();
  [[nodiscard]] int process_id() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace ckptring::save
