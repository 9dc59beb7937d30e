#include "save/async_save.h"

#include "base/log.h"
#include "base/out_of_memory.h"
#include "os/clock.h"
#include "os/umask.h"
#include "save/capture.h"
#include "save/follow_streams.h"
#include "save/lifetime.h"
#include "save/pending_save.h"
#include "save/ring_keeper.h"
#include "save/ring_size.h"
#include "save/saved_files.h"
#include "save/saves_in_flight.h"
#include "save/task_thread.h"
#include "stage/default_stager.h"
#include "store/directories.h"
#include "store/drain_tables.h"
#include "store/file_at.h"
#include "store/file_sink.h"

#include <ckptring/error.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace ckptring::save {
namespace {

/// How long what is being staged may take to end once it is given up, before it is left alone.
constexpr std::chrono::seconds kGiveUpLimit{5};
/// How often close() looks for progress.
constexpr std::chrono::milliseconds kProgressLook{200};
/// And whether a save call has ended.
constexpr std::chrono::milliseconds kSaveCallLook{1};

}  // namespace

struct AsyncSave::Parts {
  Parts(const CheckpointerConfig& configuration, RankInfo rank_info)
      : config(configuration),
        rank(rank_info),
        log{rank_info.global_rank},
        devices(std::make_shared<stage::DeviceAccess>(log)),
        stager(configuration.staging_config),
        capture(configuration.staging_config, *devices),
        saved(rank_info.global_rank),
        saves(life, rank_info.global_rank),
        rings(life, saves, config, rank_info, *devices),
        tasks(life) {}

  // --- the staging thread -----------------------------------------------------------------
  void stage(const Save& save);
  void warn_of_replaced(PendingSave& save) const;
  void stage_into(DrainedRing& ring, PendingSave& save);
  static void check_unchanged(PendingSave& save);
  void take_back(DrainedRing& ring, PendingSave& save);
  void tell_stopped(PendingSave& save);
  void fail_unannounced(const Save& save, const std::exception_ptr& failure);

  // --- any thread -------------------------------------------------------------------------
  void wait_for_save_call(double limit_secs);
  bool end_tasks();
  bool wait_for_tasks(std::uint64_t since_ns, double patience_secs);
  [[nodiscard]] double last_look_secs(std::uint64_t since_ns) const;
  bool give_up_tasks();
  void leave_behind();
  void end();
  bool is_left_behind() const {
    const std::scoped_lock lock(life.mutex);
    return left_behind;
  }
  static Error closed_too_early(const PendingSave& save);
  static Error destroyed_too_early(const PendingSave& save);
  bool give_up_saves(Error (*why)(const PendingSave&)) noexcept;
  /// Whether `save` returns before the state is staged.
  [[nodiscard]] bool goes_on_while_staging() const {
    return config.staging_config.use_async_staging;
  }
  void let_change(PendingSave& save, std::span<const stage::CaptureAt> selected);

  const CheckpointerConfig config;
  const RankInfo rank;
  const base::LogContext log;
  const std::shared_ptr<stage::DeviceAccess> devices;  ///< shared with handles
  stage::DefaultStager stager;                         // the staging thread's

  std::mutex saving;  ///< serialises save calls; before the mutex of `life`
  Capture capture;    ///< guarded by `saving`
  const SavedFiles saved;
  Lifetime life;
  SavesInFlight saves;
  RingKeeper rings;
  TaskThread tasks;
  // Guarded by the mutex of `life`.
  bool left_behind = false;  ///< the staging thread does not end: this lives for ever
  Save at_hand;              ///< being staged
};

// ------------------------------------------------------------------------------ staging thread

void AsyncSave::Parts::stage(const Save& save) {
  {
    const std::scoped_lock lock(life.mutex);
    at_hand = save;
  }
  std::shared_ptr<DrainedRing> ring;
  try {
    warn_of_replaced(*save);
    ring = rings.ring_for(*save->job, *save);
    life.check_not_given_up(save->report.path);  // after it is known whose waits would be ended
    ring::Description description{};
    const auto sizes =
        store::DrainTableSizes::of(save->job->plan, config.process_config.block_bytes);
    description.payload_count = sizes.payloads;
    description.fixup_count = sizes.fixups;
    description.ledger_count = sizes.ledger;
    description.plan_bytes = sizes.bytes();
    description.total_bytes = save->job->plan.total_bytes();
    description.missing_levels = save->target.missing_levels;
    if (save->target.umask) description.umask = ring::kUmaskKnown | *save->target.umask;
    ring::copy_text(description.directory, sizeof description.directory, save->target.directory);
    ring::copy_text(description.final_name, sizeof description.final_name, save->target.final_name);
    ring::copy_text(description.temporary_name, sizeof description.temporary_name,
                    save->target.temporary_name);
    if (!ring->producer.wait_for_record(description.plan_bytes, ring->process.given_up_fd(),
                                        os::Deadline::never())) {
      life.check_not_given_up(save->report.path);
      (void)ring->process.ready();  // throws why it was given up
    }
    // Not earlier: saves that are still in flight may put their files there.
    description.replaced = store::file_at(
        store::system_files(), store::path_in(save->target.directory, save->target.final_name));
    life.check_not_given_up(save->report.path);
    const std::uint64_t number = ring->producer.open(description, [&](std::span<std::byte> tables) {
      store::fill_drain_tables(save->job->plan, config.process_config.block_bytes, sizes, tables);
    });
    {
      const std::scoped_lock lock(life.mutex);
      save->number = number;
      if (left_behind) {
        ring->producer.abandon(number);
      } else {
        saves.announce(number, save);
      }
    }
    ring->process.expect(number);
    stage_into(*ring, *save);
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    if (ring) take_back(*ring, *save);
    fail_unannounced(save, error);
  }
  const std::scoped_lock lock(life.mutex);
  at_hand = nullptr;
}

namespace {

/// Of a block that has just been filled.
void check_sampled(const PendingSave& save, std::uint64_t file_offset,
                   std::span<const std::byte> block) {
  const std::optional<std::uint32_t> changed = save.samples.first_changed(file_offset, block);
  if (!changed) return;
  throw Error(ErrorCode::changed_while_staging,
              fmt::format("stage key {} for", save.job->name(*changed)), save.job->path,
              "the tensor's bytes were changed before `staged` was ready, by something that did "
              "not raise its version; wait for `staged` first");
}

}  // namespace

void AsyncSave::Parts::warn_of_replaced(PendingSave& save) const {
  std::vector<std::string> warnings = saved.warnings_of_replaced(save.target.device);
  for (const std::string& warning : warnings) log.warn("{}", warning);
  auto name = std::make_unique<SaveToName>(saved, save.target);
  const std::scoped_lock lock(life.mutex);
  save.report.warnings = std::move(warnings);
  save.name = std::move(name);
}

/// The save is announced: whatever happens now, its outcome comes through the ring.
void AsyncSave::Parts::stage_into(DrainedRing& ring, PendingSave& save) {
  const base::LogContext save_log{rank.global_rank, ring.producer.current_save()};
  std::exception_ptr error;
  bool complete = false;
  try {
    stage::DeviceCopies* const copies = save.job->devices.empty() ? nullptr : devices->copies();
    if (copies != nullptr) follow_streams(*save.job, *copies);
    const stage::StageResult result =
        stager.stage(ring.producer,
                     {.plan = save.job->plan,
                      .sources = save.job->sources,
                      .devices = copies,
                      .name_of = save.job->name_of,
                      .enqueued = [&save] { save.enqueued.set_value(); },
                      .check_full =
                          [&save](std::uint64_t file_offset, std::span<const std::byte> block) {
                            check_sampled(save, file_offset, block);
                          }},
                     ring.process.given_up_fd());
    complete = result.complete;
    if (complete) check_unchanged(save);
    const std::scoped_lock lock(life.mutex);
    save.report.stalled_seconds = result.stalled_seconds;
    save.report.staged_seconds = os::seconds_since(save.submitted_ns);
  } catch (...) {
    error = base::as_error("stage", save.report.path, std::current_exception());
  }
  // Nobody needs the tensors any more, whatever became of the save. What described them is cleared
  // away once everybody knows.
  std::optional<SaveJob> described = save.take_job();
  described->keep_alive.reset();
  described->captured.memory.clear();
  save.enqueued.set_value();
  if (error) {
    const std::scoped_lock lock(life.mutex);
    save.staging_error = error;
  }
  {
    const std::scoped_lock lock(life.mutex);
    if (left_behind) {
      complete = false;  // it has ended after all, and its futures know already
    } else if (complete && !error) {
      ring.producer.seal();
      save.sealed = true;
    } else {
      ring.producer.abort();
      save.aborted = true;
    }
  }
  if (complete && !error) {
    save_log.debug("staged {} bytes in {:.3f} s", save.report.bytes, save.report.staged_seconds);
  }
  if (error) {
    save.staged.set_error(error);
  } else if (complete) {
    save.staged.set_value();
  } else {
    tell_stopped(save);
  }
}

/// Of a save that failed between its announcement and its first block: nobody will end it any more,
/// and the ring would wait for that for ever.
void AsyncSave::Parts::take_back(DrainedRing& ring, PendingSave& save) {
  const std::scoped_lock lock(life.mutex);
  if (left_behind || !ring.producer.is_open()) return;
  ring.producer.abort();
  save.aborted = true;
}

/// The checkpoint process has failed, or close() has no patience left: `staged` says what `written`
/// says, as soon as that is known.
void AsyncSave::Parts::tell_stopped(PendingSave& save) {
  std::exception_ptr failure;
  {
    const std::scoped_lock lock(life.mutex);
    save.stopped = true;
    if (!save.ended) return;  // `finish` will tell
    failure = save.failure;
  }
  save.staged.set_error(failure);
}

void AsyncSave::Parts::fail_unannounced(const Save& save, const std::exception_ptr& failure) {
  const std::exception_ptr error = base::as_error("stage", save->report.path, failure);
  save->take_job().reset();
  save->enqueued.set_value();
  save->staged.set_error(error);
  saves.finish(save, error);
}

/// After the last copy: whether the file holds the state as it was when `save` was called.
void AsyncSave::Parts::check_unchanged(PendingSave& save) {
  // What was copied into the ring came behind these, so they have ended; whether well is known
  // soon.
  for (const Future<void>& captured : save.job->captured.on_devices) captured.get();
  save.watch->before_sealing();
}

// ---------------------------------------------------------------------------------- any thread

/// A save call under way ends before the checkpointer does: what it has begun is waited for. One
/// that does not end, as it looks at a file system that hangs, begins nothing more should it go on.
void AsyncSave::Parts::wait_for_save_call(double limit_secs) {
  // By looking: the thread sanitizer does not know of locks that are tried for a time.
  const os::Deadline enough = os::Deadline::after(limit_secs);
  std::unique_lock lock(saving, std::try_to_lock);
  while (!lock && !enough.passed()) {
    std::this_thread::sleep_for(kSaveCallLook);
    (void)lock.try_lock();
  }
}

/// Waits until everything begun is staged, as long as something moves. Then ends what is not, or
/// leaves it behind.
/// @return whether everything is staged
bool AsyncSave::Parts::end_tasks() {
  if (is_left_behind()) return false;
  const double limit = config.process_config.subprocess_shutdown_timeout_secs;
  if (wait_for_tasks(os::monotonic_ns(), limit)) return true;
  if (!give_up_tasks()) leave_behind();
  return false;
}

/// @return whether everything begun is staged; false: it waits for room in the ring or for a
///         device, and there was no progress for so long
bool AsyncSave::Parts::wait_for_tasks(std::uint64_t since_ns, double patience_secs) {
  while (!tasks.wait_idle_for(kProgressLook)) {
    if (rings.secs_without_progress(since_ns) > patience_secs) return false;
  }
  return true;
}

/// How long what ends may still look at files.
double AsyncSave::Parts::last_look_secs(std::uint64_t since_ns) const {
  const double limit = config.process_config.subprocess_shutdown_timeout_secs;
  return std::min(kLastLookSecs, limit - rings.secs_without_progress(since_ns));
}

/// Ends the staging of all that is not staged yet.
/// @return false: it does not end, because a device does not
bool AsyncSave::Parts::give_up_tasks() {
  {
    const std::scoped_lock lock(life.mutex);
    life.given_up = true;
  }
  life.changed.notify_all();
  if (const std::shared_ptr<DrainedRing> ring = rings.current()) ring->process.stop_staging();
  return tasks.wait_idle_for(kGiveUpLimit);
}

/// What the staging thread waits for may never end; and what it has begun may still be written to,
/// and read from, whenever the device comes to it. So the thread is left alone for the life of the
/// process, and with it all that it may touch: this object with the ring, its registration, the
/// engines, and the tensors of the save at hand.
void AsyncSave::Parts::leave_behind() {
  const std::string copies = rings.copies_under_way();
  std::shared_ptr<DrainedRing> ring;
  std::vector<Save> unstaged;
  std::vector<std::optional<SaveJob>> never_begun;
  std::deque<TaskThread::Task> dropped;
  {
    const std::scoped_lock lock(life.mutex);
    if (tasks.is_idle()) return;  // it has ended after all
    left_behind = true;
    dropped = tasks.abandon();
    ring = rings.current_locked();
    unstaged = saves.all();
    // One that has failed meanwhile is not in flight any more, and its blocks are still written to.
    if (at_hand && at_hand->ended) unstaged.push_back(at_hand);
    std::erase_if(unstaged, [](const auto& save) { return save->sealed || save->aborted; });
    for (const auto& save : unstaged) {
      if (save != at_hand) never_begun.push_back(save->take_job());
      if (save->number == 0) continue;
      // Its blocks stay as they are: this ring is used for nothing else.
      ring->producer.abandon(save->number);
      saves.forget(save->number);
    }
  }
  log.error(
      "the checkpointer ends without these, which have not ended: {}; what they may write to stays "
      "in memory",
      copies);
  for (const auto& save : unstaged) {
    const auto error = std::make_exception_ptr(Error(
        ErrorCode::aborted, "close", save->report.path,
        fmt::format("nothing was staged within subprocess_shutdown_timeout_secs, for these have "
                    "not ended: {}; nothing of the save becomes visible",
                    copies)));
    saves.finish(save, error);
    save->enqueued.set_error(error);
    save->staged.set_error(saves.failure_of(*save));
  }
  dropped.clear();
  if (ring) ring->process.shut_down(kIdleShutdownSecs);
  tasks.detach();
}

/// After end_tasks, if nothing was left behind. Leaves the helper to its work.
void AsyncSave::Parts::end() {
  tasks.join();
  rings.let_go();
}

/// Of a save that close() waits for no longer.
Error AsyncSave::Parts::closed_too_early(const PendingSave& save) {
  constexpr const char* kNoProgress =
      "no block reached the disk within subprocess_shutdown_timeout_secs; ";
  return save.sealed
             ? Error(ErrorCode::outcome_unknown, "close", save.report.path,
                     std::string(kNoProgress) + "the checkpoint process was left to finish it")
             : Error(ErrorCode::aborted, "close", save.report.path,
                     std::string(kNoProgress) +
                         "it was not wholly staged, and nothing of it becomes visible");
}

/// Of one that the destructor waits for no longer.
Error AsyncSave::Parts::destroyed_too_early(const PendingSave& save) {
  return save.sealed
             ? Error(ErrorCode::outcome_unknown, "save", save.report.path,
                     "the checkpointer was destroyed before the save was durable; the checkpoint "
                     "process goes on with it")
             : Error(ErrorCode::aborted, "save", save.report.path,
                     "the checkpointer was destroyed, and nothing more was staged within "
                     "subprocess_shutdown_timeout_secs; nothing of the save becomes visible");
}

/// Ends what is still in flight with what `why` says of it. Needs no memory but for the words.
/// @return whether there was anything
bool AsyncSave::Parts::give_up_saves(Error (*why)(const PendingSave&)) noexcept {
  bool any = false;
  while (const Save oldest = saves.oldest()) {
    any = true;
    std::exception_ptr error;
    try {
      throw why(*oldest);
    } catch (...) {
      error = std::current_exception();
    }
    saves.finish(oldest, error);
  }
  return any;
}

/// What the caller may do to the state once `save` has returned is done to it now: what may change
/// is copied, and what may not is looked at.
void AsyncSave::Parts::let_change(PendingSave& save, std::span<const stage::CaptureAt> selected) {
  SaveJob& job = *save.job;
  capture.take(job, selected);
  save.report.captured_storages = job.captured.storages;
  save.report.captured_bytes = job.captured.bytes;
  save.report.captured_seconds = job.captured.seconds;
  if (config.staging_config.sample_unchanged) {
    save.samples = stage::Samples(job.plan, job.sources, job.captured.sources, os::monotonic_ns());
  }
}

AsyncSave::AsyncSave(const CheckpointerConfig& config, RankInfo rank) {
  check_ring_config(config, ask_memory_left);
  // What the environment says is looked up here, in the caller's thread, and never again.
  CheckpointerConfig settled = config;
  settled.process_config.ranks_on_node = ranks_on_node(config.process_config);
  parts_ = std::make_unique<Parts>(settled, rank);
  parts_->rings.make_first();
  parts_->tasks.start();
}

namespace {

/// Reachable, so that nobody takes it for a leak.
void keep_for_ever(void* parts) {
  static std::mutex adding;
  static auto& kept = *new std::vector<void*>;
  const std::scoped_lock lock(adding);
  kept.push_back(parts);
}

}  // namespace

AsyncSave::~AsyncSave() {
  const std::uint64_t began = os::monotonic_ns();
  (void)parts_->end_tasks();
  const double look_secs = parts_->last_look_secs(began);
  const bool left_behind = parts_->is_left_behind();
  if (!left_behind) parts_->end();  // from here on no outcome arrives
  if (!parts_->life.closed) (void)parts_->saves.failures().take_unfetched();
  (void)parts_->give_up_saves(Parts::destroyed_too_early);
  parts_->saved.close(look_secs);
  if (left_behind) keep_for_ever(parts_.release());
}

void AsyncSave::check_usable() {
  const std::scoped_lock saving(parts_->saving);
  const bool throws = parts_->config.throw_previous_failure;
  {
    std::unique_lock lock(parts_->life.mutex);
    if (throws) parts_->saves.wait_for_room(lock, parts_->config.max_saves_in_flight);
    parts_->life.require_open("save");
  }
  if (!throws) return;
  if (const std::exception_ptr failure = parts_->saves.failures().take_unfetched()) {
    std::rethrow_exception(failure);
  }
}

SaveHandle AsyncSave::submit(SaveJob job) {
  std::unique_lock saving(parts_->saving);
  const std::vector<stage::CaptureAt> selected = parts_->goes_on_while_staging()
                                                     ? parts_->capture.select(job)
                                                     : std::vector<stage::CaptureAt>{};
  const auto save = std::make_shared<PendingSave>();
  std::exception_ptr failure;
  try {
    save->target = store::make_target(store::system_files(), job.path, parts_->rank,
                                      job.plan.total_bytes(), job.file_name);
    save->report.path = store::path_in(save->target.directory, save->target.final_name);
    save->target.umask = os::umask_of_this_thread();
    if (static base::FirstTime first_time; !save->target.umask && first_time()) {
      parts_->log.info(
          "there is no /proc to tell the umask: files have the modes of the one that was there "
          "when their checkpoint process was started");
    }
  } catch (const Error& error) {
    // What could never work is the caller's to know at once; what the disk says is the future's.
    if (error.code() == ErrorCode::invalid_argument) throw;
    failure = std::current_exception();
    save->report.path = job.path;
  }
  save->credentials = os::Credentials::of_this_thread();
  save->report.bytes = job.plan.total_bytes();
  save->report.planned_seconds = job.planned_seconds;
  save->job = std::move(job);
  save->written_future = save->written.future();
  SaveHandle handle;
  handle.staged = save->staged.future();
  handle.written = save->written_future;
  save->watch = std::make_shared<ChangeWatch>(*save->job);
  if (!save->job->devices.empty()) {
    std::set<int> read;
    for (const DeviceState& state : save->job->devices) read.insert(state.device);
    handle.device_fence = [devices = parts_->devices, read = std::move(read), watch = save->watch,
                           enqueued = save->enqueued.future()](int device, void* stream) {
      if (!read.contains(device)) return;
      watch->at_fence(device);
      // An event recorded before the last copy is enqueued would not wait for it.
      if (enqueued.error()) return;  // waits until it is known
      devices->copies()->to_host(device).fence(stream);
    };
  }
  {
    std::unique_lock lock(parts_->life.mutex);
    parts_->saves.wait_for_room(lock, parts_->config.max_saves_in_flight);
    parts_->life.require_open("save");
  }
  if (parts_->goes_on_while_staging() && !failure) {
    try {
      parts_->let_change(*save, selected);
    } catch (const Error&) {  // of a device, or for want of memory
      failure = std::current_exception();
    }
  }
  {
    const std::scoped_lock lock(parts_->life.mutex);
    parts_->life.require_open("save");
    save->submitted_ns = os::monotonic_ns();
    parts_->saves.add(save);
  }
  // From here on the save is in flight: it has to end, whatever fails.
  try {
    handle.previous_failure = parts_->saves.failures().take_unfetched();
    if (!failure) parts_->tasks.enqueue([parts = parts_.get(), save] { parts->stage(save); });
  } catch (const std::exception&) {  // no memory; or closed meanwhile
    failure = std::current_exception();
  }
  if (failure) {
    parts_->fail_unannounced(save, failure);
    return handle;
  }
  saving.unlock();  // close() waits for save calls, and staging may take long
  if (!parts_->goes_on_while_staging()) handle.staged.wait();
  return handle;
}

stage::DeviceAccess& AsyncSave::devices() { return *parts_->devices; }

namespace {

PrepareReport report_of(const SaveJob& job, std::span<const stage::CaptureAt> selected) {
  PrepareReport report;
  for (const stage::CaptureAt& at : selected) {
    report.captured_bytes += at.bytes;
    for (const std::uint32_t source : at.sources) {
      report.captured_keys.push_back(job.name(source));
    }
  }
  return report;
}

}  // namespace

PrepareReport AsyncSave::prepare(const SaveJob& job) {
  auto done = std::make_shared<Promise<void>>();
  const Future<void> prepared = done->future();
  PendingSave turn;  // no save, but in line with them: it waits for those before it only
  PrepareReport report;
  turn.credentials = os::Credentials::of_this_thread();
  {
    const std::scoped_lock saving(parts_->saving);
    {
      const std::scoped_lock lock(parts_->life.mutex);
      parts_->life.require_open("prepare");
    }
    if (parts_->goes_on_while_staging()) {
      const std::vector<stage::CaptureAt> selected = parts_->capture.select(job);
      parts_->capture.prepare(job, selected);
      report = report_of(job, selected);
    }
    turn.submitted_ns = os::monotonic_ns();
    // `job` and `turn` outlive the task: this call waits for it. The promise is the task's alone,
    // so that one which is dropped ends the wait.
    parts_->tasks.enqueue([parts = parts_.get(), done = std::move(done), &job, &turn] {
      try {
        (void)parts->rings.ring_for(job, turn);
        done->set_value();
      } catch (...) {
        done->set_error(std::current_exception());
      }
    });
  }
  try {
    prepared.get();
  } catch (const std::logic_error&) {  // it was dropped
    parts_->life.check_not_given_up("");
    throw;
  }
  return report;
}

void AsyncSave::ready() {
  // One that is replaced ends; then its successor is what is asked for.
  while (!parts_->rings.await("wait for the checkpoint process")->process.ready()) {
  }
}

void AsyncSave::wait_prefaulted() { parts_->rings.wait_prefaulted(); }

std::vector<UnwrittenSave> AsyncSave::wait_written(std::chrono::steady_clock::time_point deadline) {
  return parts_->saves.wait_written(deadline);
}

void AsyncSave::close() {
  {
    const std::scoped_lock lock(parts_->life.mutex);
    if (parts_->life.closed) return;
    parts_->life.closed = true;
  }
  parts_->life.changed.notify_all();
  const double limit = parts_->config.process_config.subprocess_shutdown_timeout_secs;
  parts_->wait_for_save_call(limit);
  const std::uint64_t began = os::monotonic_ns();
  bool patient = parts_->end_tasks();
  while (patient) {
    const Save oldest = parts_->saves.oldest();
    if (!oldest) break;
    (void)oldest->written_future.wait_for(kProgressLook);
    patient = parts_->rings.secs_without_progress(began) <= limit;
  }
  const double look_secs = parts_->last_look_secs(began);
  const bool all_ended = !parts_->give_up_saves(Parts::closed_too_early);
  if (!parts_->is_left_behind()) {
    if (all_ended) parts_->rings.drop();
    parts_->end();
  }
  (void)parts_->saves.failures().take_unfetched();
  parts_->saved.close(look_secs);
}

bool AsyncSave::is_closed() const {
  const std::scoped_lock lock(parts_->life.mutex);
  return parts_->life.closed;
}

int AsyncSave::process_id() const {
  const std::shared_ptr<DrainedRing> ring = parts_->rings.current();
  return ring ? ring->process.process_id() : 0;
}

}  // namespace ckptring::save
