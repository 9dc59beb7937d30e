// How a planned save is carried out: two ways, of which a Saver has one.
#pragma once

#include "save/save_job.h"
#include "stage/device_access.h"

#include <ckptring/save_handle.h>
#include <ckptring/save_report.h>

#include <chrono>
#include <vector>

namespace ckptring::save {

/// Thread-safe. Which process may call it is the Saver's to know.
class Engine {
 public:
  Engine() = default;
  virtual ~Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Throws what `save` must throw before planning: closed, and with throw_previous_failure the
  /// unfetched failure of an earlier save.
  virtual void check_usable() = 0;
  /// Carries it out, or begins to. Call `check_usable` before planning.
  /// @throws Error closed; invalid_argument for a path that never works
  virtual SaveHandle submit(SaveJob job) = 0;
  /// Makes ready for saves like this one.
  virtual PrepareReport prepare(const SaveJob& job) = 0;

  virtual void ready() = 0;
  virtual void wait_prefaulted() = 0;
  virtual std::vector<UnwrittenSave> wait_written(
      std::chrono::steady_clock::time_point deadline) = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual bool is_closed() const = 0;
  [[nodiscard]] virtual int process_id() const = 0;

  /// Where a job's DeviceState come from.
  [[nodiscard]] virtual stage::DeviceAccess& devices() = 0;
};

}  // namespace ckptring::save
