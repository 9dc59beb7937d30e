// The asynchronous path: stages jobs into the ring one after the other and keeps the checkpoint
// process alive until each is durable.
#pragma once

#include "save/engine.h"
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

class AsyncSave final : public Engine {
 public:
  /// Starts the checkpoint process without waiting for it.
  /// @throws Error invalid_argument, out_of_memory; permission or io if the system refuses what a
  ///         ring is made of
  AsyncSave(const CheckpointerConfig& config, RankInfo rank);
  /// Waits until what was begun is staged, at most subprocess_shutdown_timeout_secs without
  /// progress, and looks for replaced files, at most kLastLookSecs. Where a device hangs, what it
  /// may still use is left in memory for ever.
  ~AsyncSave() override;

  void check_usable() override;
  /// Waits for room among `max_saves_in_flight`, then hands the job to the staging thread; with
  /// use_async_staging false, also waits until it is staged.
  SaveHandle submit(SaveJob job) override;
  /// Sizes the automatic ring for this job, now, and populates it in the background; makes the
  /// memory for what `submit` will capture.
  PrepareReport prepare(const SaveJob& job) override;

  void ready() override;
  void wait_prefaulted() override;
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline) override;
  void close() override;
  [[nodiscard]] bool is_closed() const override;
  [[nodiscard]] int process_id() const override;
  [[nodiscard]] stage::DeviceAccess& devices() override;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace ckptring::save
