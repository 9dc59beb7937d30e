// What is known of a save between `save` and its outcome.
#pragma once

#include "os/credentials.h"
#include "save/change_watch.h"
#include "save/save_job.h"
#include "save/saved_files.h"
#include "stage/samples.h"
#include "store/save_sink.h"

#include <ckptring/future.h>
#include <ckptring/save_report.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

namespace ckptring::save {

/// Where nothing else is said: set before the save is handed over, else guarded by the mutex of
/// Lifetime.
struct PendingSave {
  std::optional<SaveJob> job;          ///< until staged; the staging thread's
  std::shared_ptr<ChangeWatch> watch;  ///< over the job; shared with the handle
  stage::Samples samples;              ///< of what was not captured
  store::SaveTarget target;
  std::unique_ptr<SaveToName> name;  ///< from staging to its end
  Promise<void> enqueued;  ///< no copy from a device will be begun any more; an error: left behind
  Promise<void> staged;
  Promise<SaveReport> written;
  Future<SaveReport> written_future;
  SaveReport report;
  os::Credentials credentials;  ///< of the thread that called `save`
  std::uint64_t submitted_ns = 0;
  std::uint64_t number = 0;  ///< 0 until announced
  std::exception_ptr staging_error;
  bool sealed = false;   ///< the checkpoint process needs nothing more to commit it
  bool aborted = false;  ///< nor to undo it
  bool stopped = false;  ///< staging ended before the last block, for a reason that `written` has
  bool ended = false;    ///< `written` is about to be ready
  std::exception_ptr failure;  ///< then why it failed

  /// Of a save that has one: nobody looks at it any more.
  std::optional<SaveJob> take_job() {
    if (watch) watch->end();
    return std::exchange(job, std::nullopt);
  }
};

using Save = std::shared_ptr<PendingSave>;

}  // namespace ckptring::save
