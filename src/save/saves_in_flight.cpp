#include "save/saves_in_flight.h"

#include "base/log.h"

#include <ckptring/error.h>

#include <algorithm>
#include <iterator>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace ckptring::save {
namespace {

/// Where there is no memory for them, they are in the log only.
void add_warnings(std::vector<std::string>& to, const std::vector<std::string>& more) noexcept {
  try {
    std::ranges::copy(more, std::back_inserter(to));
  } catch (const std::bad_alloc&) {  // NOLINT(bugprone-empty-catch): see above
  }
}

}  // namespace

void SavesInFlight::wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t limit) {
  const auto is_room = [&] { return life_.closed || in_flight_.size() < limit; };
  // Each save in flight ends: committed, failed, timed out, or given up by close().
  life_.changed.wait(lock, is_room);
}

bool SavesInFlight::any_before(std::uint64_t submitted_ns) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(),
                     [&](const Save& save) { return save->submitted_ns < submitted_ns; });
}

Save SavesInFlight::oldest() const {
  const std::scoped_lock lock(life_.mutex);
  return in_flight_.empty() ? nullptr : in_flight_.front();
}

void SavesInFlight::on_outcome(std::uint64_t number, supervise::SaveOutcome outcome) {
  Save save;
  std::vector<std::string> replaced;
  {
    const std::scoped_lock lock(life_.mutex);
    const auto found = by_number_.find(number);
    if (found == by_number_.end()) return;
    save = found->second;
    by_number_.erase(found);
    SaveReport& report = save->report;
    report.drained_seconds = outcome.report.drained_seconds;
    report.fsync_seconds = outcome.report.fsync_seconds;
    report.commit_seconds = outcome.report.commit_seconds;
    report.restarts = outcome.report.restarts;
    add_warnings(report.warnings, outcome.report.warnings);
    // The helper only knows that staging was given up; the reason is known here.
    if (outcome.error && save->staging_error) outcome.error = save->staging_error;
    if (!outcome.error && save->name) {
      replaced = save->name->committed(outcome.file, outcome.renamed_over);
      add_warnings(report.warnings, replaced);
    }
  }
  for (const std::string& warning : replaced) base::LogContext{rank_, number}.warn("{}", warning);
  finish(save, outcome.error);
}

void SavesInFlight::finish(const Save& save, const std::exception_ptr& error) {
  bool stopped = false;
  {
    const std::scoped_lock lock(life_.mutex);
    if (save->ended) return;
    // Before the future is ready: whoever it wakes may save at once.
    std::erase(in_flight_, save);
    if (error) failures_.add(save->number, save->report.path, save->written_future);
    save->name.reset();
    save->ended = true;
    save->failure = error;
    stopped = save->stopped;
  }
  if (stopped) save->staged.set_error(error);
  if (error) {
    save->written.set_error(error);
  } else {
    try {
      save->written.set_value(save->report);
    } catch (...) {  // no memory for the report
      save->written.set_error(std::current_exception());
    }
  }
  life_.changed.notify_all();
}

std::exception_ptr SavesInFlight::failure_of(const PendingSave& save) const {
  const std::scoped_lock lock(life_.mutex);
  return save.failure;
}

std::vector<UnwrittenSave> SavesInFlight::wait_written(
    std::chrono::steady_clock::time_point deadline) {
  std::vector<Save> begun;
  {
    const std::scoped_lock lock(life_.mutex);
    life_.require_open("wait for saves");
    begun = in_flight_;
  }
  for (const Save& save : begun) (void)save->written_future.wait_until(deadline);
  // With the mutex, so that none is told twice or not at all: whoever ends one makes its future
  // ready without it.
  const std::scoped_lock lock(life_.mutex);
  std::erase_if(begun, [&](const Save& save) {
    return std::find(in_flight_.begin(), in_flight_.end(), save) == in_flight_.end();
  });
  std::vector<UnwrittenSave> unwritten = failures_.take_untold();
  for (const Save& save : begun) unwritten.push_back({save->report.path, nullptr});
  return unwritten;
}

}  // namespace ckptring::save
