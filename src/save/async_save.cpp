#include "save/async_save.h"

#include "base/log.h"
#include "os/background_thread.h"
#include "os/clock.h"
#include "os/memory_left.h"
#include "process/checkpoint_process.h"
#include "process/plan_tables.h"
#include "ring/producer.h"
#include "ring/segment.h"
#include "ring/warm.h"
#include "save/follow_streams.h"
#include "save/ring_size.h"
#include "stage/default_stager.h"
#include "store/file_at.h"
#include "store/file_sink.h"

#include <ckptring/error.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace ckptring::save {
namespace {

/// How long an idle helper may take to end before it is left to itself.
constexpr double kIdleShutdownSecs = 5;
/// How long what is being staged may take to end once it is given up, before it is left alone.
constexpr std::chrono::seconds kGiveUpLimit{5};
/// Memory is made known to devices in pieces of about this size: one to two milliseconds of the
/// driver's time.
constexpr std::uint64_t kPinnedPiece = 32ull << 20;
/// How often close() looks for progress.
constexpr std::chrono::milliseconds kProgressLook{200};

os::MemoryLeft ask_memory_left() { return os::memory_left(); }

ring::Settings settings_for(const CheckpointerConfig& config, RankInfo rank) {
  ring::Settings settings{};
  settings.global_rank = rank.global_rank;
  settings.global_world_size = rank.global_world_size;
  settings.write_mode = static_cast<std::int32_t>(config.writer_config.mode);
  settings.queue_depth = config.writer_config.queue_depth;
  settings.threads = config.writer_config.threads;
  settings.log_level = static_cast<std::int32_t>(log_level());
  settings.busy_timeout_secs = config.writer_config.busy_timeout_secs;
  settings.orphan_timeout_secs = config.process_config.orphan_timeout_secs;
  return settings;
}

/// One ring, the process that drains it, and the thread that populates it.
struct Generation {
  Generation(const CheckpointerConfig& config, RankInfo rank, const ring::Geometry& geometry,
             process::CheckpointProcess::OnOutcome on_outcome,
             process::CheckpointProcess::OnUnfilled on_unfilled)
      : segment(ring::Segment::create(geometry, settings_for(config, rank))),
        producer(segment.view(), bells.bells()),
        process(config.process_config, rank, segment, bells, producer, std::move(on_outcome),
                std::move(on_unfilled)) {}

  ring::Segment segment;
  process::BellSet bells;
  ring::Producer producer;
  std::unique_ptr<ring::Warmer> warmer;  ///< guarded by the mutex; set once
  std::unique_ptr<stage::PinnedMemory>
      pinned;  ///< once a save comes from devices; the staging thread's
  process::CheckpointProcess process;
  bool announced = false;  ///< logged, and populated in the background; the staging thread's
};

/// What is known of a save between `submit` and its outcome.
struct Pending {
  std::optional<SaveJob> job;  ///< until staged
  store::SaveTarget target;
  Promise<void> enqueued;  ///< no copy from a device will be begun any more; an error: left behind
  Promise<void> staged;
  Promise<SaveReport> written;
  Future<SaveReport> written_future;
  SaveReport report;
  std::uint64_t submitted_ns = 0;
  std::uint64_t number = 0;  ///< 0 until announced
  std::exception_ptr staging_error;
  bool sealed = false;   ///< the checkpoint process needs nothing more to commit it
  bool aborted = false;  ///< nor to undo it
  bool stopped = false;  ///< staging ended before the last block, for a reason that `written` has
  bool ended = false;    ///< `written` is about to be ready
  std::exception_ptr failure;  ///< then why it failed
};

}  // namespace

struct AsyncSave::Parts {
  Parts(const CheckpointerConfig& configuration, RankInfo rank_info)
      : config(configuration),
        rank(rank_info),
        owner(::getpid()),
        log{rank_info.global_rank},
        devices(std::make_shared<stage::DeviceAccess>(log)),
        stager(configuration.staging_config) {}

  // --- the staging thread -----------------------------------------------------------------
  void run_tasks();
  void stage(const std::shared_ptr<Pending>& save);
  void stage_into(Generation& ring, Pending& save);
  void tell_stopped(Pending& save);
  void fail_unannounced(const std::shared_ptr<Pending>& save, std::exception_ptr error);
  std::shared_ptr<Generation> generation_for(const SaveJob& job, const Pending* self);
  std::shared_ptr<Generation> fitting_generation(const plan::FilePlan& plan, const Pending* self);
  void pin(Generation& ring, int device) const;
  void remake(const std::string& path, std::uint64_t file_bytes, std::uint64_t tables_bytes);
  void make(std::uint64_t file_bytes, std::uint64_t tables_bytes);
  void announce(Generation& ring, const std::string& why);
  void drop_generation();

  // --- any thread -------------------------------------------------------------------------
  void on_outcome(std::uint64_t number, process::SaveOutcome outcome);
  void on_unfilled(std::uint64_t number, double secs) const;
  void finish(const std::shared_ptr<Pending>& save, std::exception_ptr error);
  void enqueue(std::function<void()> task);
  void wait_for_room(std::unique_lock<std::mutex>& lock);
  double secs_without_progress(std::uint64_t since_ns) const;
  bool end_tasks();
  bool wait_for_tasks(std::uint64_t since_ns, double patience_secs);
  bool give_up_tasks();
  void leave_behind();
  void end();
  std::vector<std::shared_ptr<Pending>> unended() const {
    const std::scoped_lock lock(mutex);
    return in_flight;
  }
  bool is_left_behind() const {
    const std::scoped_lock lock(mutex);
    return left_behind;
  }
  std::exception_ptr failure_of(const Pending& save) const {
    const std::scoped_lock lock(mutex);
    return save.failure;
  }
  std::string copies_under_way() const;
  void check_not_given_up(const std::string& path) const;
  std::exception_ptr closed_too_early(const Pending& save) const;
  std::exception_ptr take_previous_failure();
  void check_process() const;
  void require_open(const char* operation) const;  ///< with the mutex held
  std::shared_ptr<Generation> current() const {
    const std::scoped_lock lock(mutex);
    return generation;
  }
  std::shared_ptr<Generation> await_generation(const char* operation);

  const CheckpointerConfig config;
  const RankInfo rank;
  const pid_t owner;
  const base::LogContext log;
  const std::shared_ptr<stage::DeviceAccess> devices;  ///< shared with handles
  stage::DefaultStager stager;                         // the staging thread's

  std::mutex saving;  ///< serialises save calls
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<Generation> generation;  ///< none while it is remade, or after that failed
  std::exception_ptr remake_failure;
  std::deque<std::function<void()>> tasks;
  bool task_runs = false;
  bool stop = false;
  bool closed = false;
  bool given_up = false;             ///< close() has lost its patience: nothing more is staged
  bool left_behind = false;          ///< and the staging thread does not end: this lives for ever
  std::shared_ptr<Pending> at_hand;  ///< being staged
  std::vector<std::shared_ptr<Pending>> in_flight;              ///< oldest first
  std::map<std::uint64_t, std::shared_ptr<Pending>> by_number;  ///< of the current generation
  std::vector<std::shared_ptr<Pending>> failed;                 ///< not yet handed over
  std::vector<std::shared_ptr<Pending>> untold;                 ///< failed since wait_written
  std::thread thread;
};

// ------------------------------------------------------------------------------ staging thread

void AsyncSave::Parts::run_tasks() {
  os::become_background_thread("ckptring-stage");
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait(lock, [this] { return stop || !tasks.empty(); });
    if (tasks.empty()) return;  // stopped, and everything begun is staged
    const std::function<void()> task = std::move(tasks.front());
    tasks.pop_front();
    task_runs = true;
    lock.unlock();
    task();
    lock.lock();
    task_runs = false;
    changed.notify_all();
  }
}

void AsyncSave::Parts::stage(const std::shared_ptr<Pending>& save) {
  {
    const std::scoped_lock lock(mutex);
    at_hand = save;
  }
  try {
    const std::shared_ptr<Generation> ring = generation_for(*save->job, save.get());
    check_not_given_up(save->report.path);  // after it is known whose waits would be ended
    ring::Description description{};
    process::describe_tables(save->job->plan, config.process_config.block_bytes, description);
    description.total_bytes = save->job->plan.total_bytes();
    description.missing_levels = save->target.missing_levels;
    ring::copy_text(description.directory, sizeof description.directory, save->target.directory);
    ring::copy_text(description.final_name, sizeof description.final_name, save->target.final_name);
    ring::copy_text(description.temporary_name, sizeof description.temporary_name,
                    save->target.temporary_name);
    if (!ring->producer.wait_for_record(description.plan_bytes, ring->process.given_up_fd(),
                                        os::Deadline::never())) {
      check_not_given_up(save->report.path);
      (void)ring->process.ready();  // throws why it was given up
    }
    // Not earlier: saves that are still in flight may put their files there.
    description.replaced = store::file_at(store::system_files(),
                                          save->target.directory + "/" + save->target.final_name);
    check_not_given_up(save->report.path);
    const std::uint64_t number = ring->producer.open(description, [&](std::span<std::byte> tables) {
      process::fill_tables(save->job->plan, config.process_config.block_bytes, description, tables);
    });
    {
      const std::scoped_lock lock(mutex);
      save->number = number;
      if (left_behind) {
        ring->producer.abandon(number);
      } else {
        by_number.emplace(number, save);
      }
    }
    ring->process.expect(number);
    stage_into(*ring, *save);
  } catch (...) {
    fail_unannounced(save, std::current_exception());
  }
  const std::scoped_lock lock(mutex);
  at_hand = nullptr;
}

/// The save is announced: whatever happens now, its outcome comes through the ring.
void AsyncSave::Parts::stage_into(Generation& ring, Pending& save) {
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
                      .enqueued = [&save] { save.enqueued.set_value(); }},
                     ring.process.given_up_fd());
    complete = result.complete;
    if (complete && save.job->check_unchanged) save.job->check_unchanged();
    const std::scoped_lock lock(mutex);
    save.report.stalled_seconds = result.stalled_seconds;
    save.report.staged_seconds = os::seconds_since(save.submitted_ns);
  } catch (...) {
    error = std::current_exception();
  }
  // Nobody needs the tensors any more, whatever became of the save. What described them is cleared
  // away once everybody knows.
  std::optional<SaveJob> described = std::exchange(save.job, std::nullopt);
  described->keep_alive.reset();
  save.enqueued.set_value();
  if (error) {
    const std::scoped_lock lock(mutex);
    save.staging_error = error;
  }
  {
    const std::scoped_lock lock(mutex);
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

/// The checkpoint process has failed, or close() has no patience left: `staged` says what `written`
/// says, as soon as that is known.
void AsyncSave::Parts::tell_stopped(Pending& save) {
  std::exception_ptr failure;
  {
    const std::scoped_lock lock(mutex);
    save.stopped = true;
    if (!save.ended) return;  // `finish` will tell
    failure = save.failure;
  }
  save.staged.set_error(failure);
}

void AsyncSave::Parts::fail_unannounced(const std::shared_ptr<Pending>& save,
                                        std::exception_ptr error) {
  save->job.reset();
  save->enqueued.set_value();
  save->staged.set_error(error);
  finish(save, error);
}

/// The ring for this job, known to the devices that it comes from.
std::shared_ptr<Generation> AsyncSave::Parts::generation_for(const SaveJob& job,
                                                             const Pending* self) {
  std::shared_ptr<Generation> ring = fitting_generation(job.plan, self);
  if (!job.devices.empty() && !ring->pinned) pin(*ring, job.devices.front().device);
  return ring;
}

void AsyncSave::Parts::pin(Generation& ring, int device) const {
  const std::uint64_t block = config.process_config.block_bytes;
  stage::WaitPopulated wait;
  if (ring.warmer) {
    // Small pages that the driver holds could not become huge ones any more.
    wait = [&warmer = *ring.warmer](const std::stop_token& stop_pinning, std::uint64_t bytes) {
      warmer.wait(stop_pinning, bytes);
    };
  }
  ring.pinned = devices->copies()->pin(ring.segment.view().blocks(),
                                       std::max(kPinnedPiece / block * block, block), device,
                                       std::move(wait));
}

/// The ring for this plan: the current one if it will do, else a new one.
std::shared_ptr<Generation> AsyncSave::Parts::fitting_generation(const plan::FilePlan& plan,
                                                                 const Pending* self) {
  ring::Description description{};
  process::describe_tables(plan, config.process_config.block_bytes, description);
  std::shared_ptr<Generation> now = current();
  const bool automatic = config.process_config.ring_bytes == 0;
  bool usable = now != nullptr && !now->process.given_up();
  if (usable && !now->producer.fits(description.plan_bytes)) {
    if (config.process_config.plan_bytes != 0) {
      throw Error(ErrorCode::invalid_argument, "plan a save", "",
                  "its tables need " + std::to_string(description.plan_bytes) +
                      " bytes of the plan area, and plan_bytes is " +
                      std::to_string(config.process_config.plan_bytes));
    }
    usable = false;
  }
  if (usable && automatic) {
    const std::uint64_t slots = now->segment.view().geometry().slot_count;
    const std::uint64_t block = config.process_config.block_bytes;
    if (plan.total_bytes() > slots * block) {
      // What this ring holds already counts as left for its successor.
      const RingSize better = choose_ring(config, plan.total_bytes(), description.plan_bytes, [&] {
        os::MemoryLeft left = os::memory_left();
        left.bytes += slots * block;
        return left;
      });
      usable = better.geometry.slot_count <= slots;
    }
  }
  if (usable) {
    if (!now->announced) {
      announce(
          *now,
          choose_ring(config, plan.total_bytes(), description.plan_bytes, ask_memory_left).why);
    }
    return now;
  }
  {
    // Nobody may be draining the old ring.
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] {
      return given_up || std::none_of(in_flight.begin(), in_flight.end(), [&](const auto& save) {
               return save->submitted_ns < self->submitted_ns;
             });
    });
  }
  check_not_given_up(self->report.path);
  remake(self->report.path, plan.total_bytes(), description.plan_bytes);
  return current();
}

void AsyncSave::Parts::remake(const std::string& path, std::uint64_t file_bytes,
                              std::uint64_t tables_bytes) {
  drop_generation();
  try {
    check_not_given_up(path);  // that may have taken long
    make(file_bytes, tables_bytes);
  } catch (...) {
    {
      const std::scoped_lock lock(mutex);
      remake_failure = std::current_exception();
    }
    changed.notify_all();
    throw;
  }
  changed.notify_all();
}

void AsyncSave::Parts::make(std::uint64_t file_bytes, std::uint64_t tables_bytes) {
  const RingSize size = choose_ring(config, file_bytes, tables_bytes, ask_memory_left);
  auto made = std::make_shared<Generation>(
      config, rank, size.geometry,
      [this](std::uint64_t number, process::SaveOutcome outcome) {
        on_outcome(number, std::move(outcome));
      },
      [this](std::uint64_t number, double secs) { on_unfilled(number, secs); });
  // The smallest ring, until a file is known: it may do for that.
  const bool placeholder = file_bytes == 0 && config.process_config.ring_bytes == 0;
  if (!placeholder) announce(*made, size.why);
  const std::scoped_lock lock(mutex);
  generation = std::move(made);
}

void AsyncSave::Parts::announce(Generation& ring, const std::string& why) {
  ring.announced = true;
  const ring::Geometry& geometry = ring.segment.view().geometry();
  log.info("ring of {} blocks of {} KiB: {}", geometry.slot_count, geometry.block_bytes >> 10, why);
  if (!config.process_config.prefault) return;
  auto warmer = std::make_unique<ring::Warmer>(ring.segment, rank.global_rank);
  const std::scoped_lock lock(mutex);
  ring.warmer = std::move(warmer);
}

void AsyncSave::Parts::drop_generation() {
  std::shared_ptr<Generation> old;
  {
    const std::scoped_lock lock(mutex);
    old = std::move(generation);
    generation = nullptr;
    remake_failure = nullptr;
    by_number.clear();
  }
  if (old != nullptr && !old->process.given_up()) old->process.shut_down(kIdleShutdownSecs);
}

// ---------------------------------------------------------------------------------- any thread

void AsyncSave::Parts::on_outcome(std::uint64_t number, process::SaveOutcome outcome) {
  std::shared_ptr<Pending> save;
  {
    const std::scoped_lock lock(mutex);
    const auto found = by_number.find(number);
    if (found == by_number.end()) return;
    save = found->second;
    by_number.erase(found);
    SaveReport& report = save->report;
    report.drained_seconds = outcome.report.drained_seconds;
    report.fsync_seconds = outcome.report.fsync_seconds;
    report.commit_seconds = outcome.report.commit_seconds;
    report.restarts = outcome.report.restarts;
    report.warnings = std::move(outcome.report.warnings);
    // The helper only knows that staging was given up; the reason is known here.
    if (outcome.error && save->staging_error) outcome.error = save->staging_error;
  }
  finish(save, outcome.error);
}

void AsyncSave::Parts::on_unfilled(std::uint64_t number, double secs) const {
  base::LogContext{rank.global_rank, number}.warn(
      "nothing was staged for {:.1f} s, and nothing is left to write: the save goes on once these "
      "have ended: {}",
      secs, copies_under_way());
}

/// In words.
std::string AsyncSave::Parts::copies_under_way() const {
  const std::vector<std::string> copies = devices->under_way();
  return copies.empty() ? "copies" : fmt::format("{}", fmt::join(copies, ", "));
}

/// The ring there is, or the one that is being made.
std::shared_ptr<Generation> AsyncSave::Parts::await_generation(const char* operation) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [this] { return closed || generation || remake_failure; });
  require_open(operation);
  if (!generation) std::rethrow_exception(remake_failure);
  return generation;
}

void AsyncSave::Parts::finish(const std::shared_ptr<Pending>& save, std::exception_ptr error) {
  bool stopped = false;
  {
    const std::scoped_lock lock(mutex);
    if (save->ended) return;
    // Before the future is ready: whoever it wakes may save at once.
    std::erase(in_flight, save);
    if (error) {
      failed.push_back(save);
      untold.push_back(save);
    }
    save->ended = true;
    save->failure = error;
    stopped = save->stopped;
  }
  if (stopped) save->staged.set_error(error);
  if (error) {
    save->written.set_error(error);
  } else {
    save->written.set_value(save->report);
  }
  changed.notify_all();
}

void AsyncSave::Parts::enqueue(std::function<void()> task) {
  {
    const std::scoped_lock lock(mutex);
    tasks.push_back(std::move(task));
  }
  changed.notify_all();
}

/// For one more save in flight, or for the end of this checkpointer.
void AsyncSave::Parts::wait_for_room(std::unique_lock<std::mutex>& lock) {
  // Each save in flight ends: committed, failed, timed out, or given up by close().
  changed.wait(lock, [this] { return closed || in_flight.size() < config.max_saves_in_flight; });
}

/// Since the last sign of life of either side, or since `since_ns` if there was none later.
double AsyncSave::Parts::secs_without_progress(std::uint64_t since_ns) const {
  const std::shared_ptr<Generation> ring = current();
  return os::seconds_since(
      std::max(since_ns, ring ? ring->process.last_activity_ns() : std::uint64_t{0}));
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
  for (;;) {
    {
      std::unique_lock lock(mutex);
      if (changed.wait_for(lock, kProgressLook, [this] { return tasks.empty() && !task_runs; })) {
        return true;
      }
    }
    if (secs_without_progress(since_ns) > patience_secs) return false;
  }
}

/// Ends the staging of all that is not staged yet.
/// @return false: it does not end, because a device does not
bool AsyncSave::Parts::give_up_tasks() {
  std::shared_ptr<Generation> ring;
  {
    const std::scoped_lock lock(mutex);
    given_up = true;
    ring = generation;
  }
  changed.notify_all();
  if (ring) ring->process.stop_staging();
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, kGiveUpLimit, [this] { return tasks.empty() && !task_runs; });
}

/// What the staging thread waits for may never end; and what it has begun may still be written to,
/// and read from, whenever the device comes to it. So the thread is left alone for the life of the
/// process, and with it all that it may touch: this object with the ring, its registration, the
/// engines, and the tensors of the save at hand.
void AsyncSave::Parts::leave_behind() {
  const std::string copies = copies_under_way();
  std::vector<std::shared_ptr<Pending>> unstaged;
  std::vector<std::optional<SaveJob>> never_begun;
  std::deque<std::function<void()>> dropped;
  std::shared_ptr<Generation> ring;
  {
    const std::scoped_lock lock(mutex);
    if (tasks.empty() && !task_runs) return;  // it has ended after all
    left_behind = true;
    stop = true;
    dropped = std::exchange(tasks, {});
    ring = generation;
    unstaged = in_flight;
    // One that has failed meanwhile is not in flight any more, and its blocks are still written to.
    if (at_hand && at_hand->ended) unstaged.push_back(at_hand);
    std::erase_if(unstaged, [](const auto& save) { return save->sealed || save->aborted; });
    for (const auto& save : unstaged) {
      if (save != at_hand) never_begun.push_back(std::exchange(save->job, std::nullopt));
      if (save->number == 0) continue;
      // Its blocks stay as they are: this ring is used for nothing else.
      ring->producer.abandon(save->number);
      by_number.erase(save->number);
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
    finish(save, error);
    save->enqueued.set_error(error);
    save->staged.set_error(failure_of(*save));
  }
  dropped.clear();
  if (ring) ring->process.shut_down(kIdleShutdownSecs);
  thread.detach();
}

/// After end_tasks, if nothing was left behind. Leaves the helper to its work.
void AsyncSave::Parts::end() {
  std::shared_ptr<Generation> last;
  {
    const std::scoped_lock lock(mutex);
    stop = true;
    last = std::move(generation);
  }
  changed.notify_all();
  if (thread.joinable()) thread.join();
  // Not under the mutex: its watching thread, which is joined, may be delivering an outcome.
  last.reset();
}

void AsyncSave::Parts::check_not_given_up(const std::string& path) const {
  const std::scoped_lock lock(mutex);
  if (!given_up) return;
  throw Error(ErrorCode::aborted, "stage", path,
              "the checkpointer was closed, and nothing more was staged within "
              "subprocess_shutdown_timeout_secs");
}

/// Of a save that close() waits for no longer.
std::exception_ptr AsyncSave::Parts::closed_too_early(const Pending& save) const {
  constexpr const char* kNoProgress =
      "no block reached the disk within subprocess_shutdown_timeout_secs; ";
  return std::make_exception_ptr(
      save.sealed ? Error(ErrorCode::outcome_unknown, "close", save.report.path,
                          std::string(kNoProgress) + "the checkpoint process was left to finish it")
                  : Error(ErrorCode::aborted, "close", save.report.path,
                          std::string(kNoProgress) +
                              "it was not wholly staged, and nothing of it becomes visible"));
}

/// The newest failure that nobody fetched; older ones are logged. Each is handed over once.
std::exception_ptr AsyncSave::Parts::take_previous_failure() {
  std::vector<std::shared_ptr<Pending>> earlier;
  {
    const std::scoped_lock lock(mutex);
    earlier = std::exchange(failed, {});
  }
  std::exception_ptr newest;
  for (const auto& save : earlier) {
    if (save->written_future.fetched()) continue;
    newest = save->written_future.error();
    try {
      std::rethrow_exception(newest);
    } catch (const std::exception& error) {
      base::LogContext{rank.global_rank, save->number}.error(
          "an earlier save failed, and nobody asked for its result: {}", error.what());
    }
  }
  return newest;
}

void AsyncSave::Parts::check_process() const {
  if (::getpid() != owner) {
    throw Error(
        ErrorCode::wrong_process, "use a checkpointer", "",
        "it belongs to process " + std::to_string(owner) + ", and this is a forked child of it");
  }
}

void AsyncSave::Parts::require_open(const char* operation) const {
  if (closed) throw Error(ErrorCode::closed, operation, "", "the checkpointer was closed");
}

AsyncSave::AsyncSave(const CheckpointerConfig& config, RankInfo rank) {
  check_ring_config(config, ask_memory_left);
  parts_ = std::make_unique<Parts>(config, rank);
  parts_->remake("", 0, 0);
  parts_->thread = std::thread([parts = parts_.get()] { parts->run_tasks(); });
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
  if (::getpid() != parts_->owner) {
    // Threads, memory and descriptors belong to the parent; there is nothing here to end.
    (void)parts_.release();  // NOLINT(bugprone-unused-return-value)
    return;
  }
  (void)parts_->end_tasks();
  const bool left_behind = parts_->is_left_behind();
  if (!left_behind) parts_->end();  // from here on no outcome arrives
  if (!parts_->closed) (void)parts_->take_previous_failure();
  for (const auto& save : parts_->unended()) {
    parts_->finish(save, std::make_exception_ptr(Error(
                             ErrorCode::outcome_unknown, "save", save->report.path,
                             "the checkpointer was destroyed before the save was durable; the "
                             "checkpoint process goes on with it")));
  }
  if (left_behind) keep_for_ever(parts_.release());
}

void AsyncSave::check_usable() {
  parts_->check_process();
  const std::scoped_lock saving(parts_->saving);
  const bool throws = parts_->config.throw_previous_failure;
  {
    std::unique_lock lock(parts_->mutex);
    if (throws) parts_->wait_for_room(lock);
    parts_->require_open("save");
  }
  if (!throws) return;
  if (const std::exception_ptr failure = parts_->take_previous_failure()) {
    std::rethrow_exception(failure);
  }
}

SaveHandle AsyncSave::submit(SaveJob job) {
  parts_->check_process();
  std::unique_lock saving(parts_->saving);
  const auto save = std::make_shared<Pending>();
  std::exception_ptr unreachable;
  try {
    save->target =
        store::make_target(store::system_files(), job.path, parts_->rank, job.plan.total_bytes());
    save->report.path = save->target.directory + "/" + save->target.final_name;
  } catch (const Error& error) {
    // What could never work is the caller's to know at once; what the disk says is the future's.
    if (error.code() == ErrorCode::invalid_argument) throw;
    unreachable = std::current_exception();
    save->report.path = job.path;
  }
  save->report.bytes = job.plan.total_bytes();
  save->report.planned_seconds = job.planned_seconds;
  save->job = std::move(job);
  save->written_future = save->written.future();
  SaveHandle handle;
  handle.staged = save->staged.future();
  handle.written = save->written_future;
  if (!save->job->devices.empty()) {
    std::set<int> read;
    for (const DeviceState& state : save->job->devices) read.insert(state.device);
    handle.device_fence = [devices = parts_->devices, read = std::move(read),
                           enqueued = save->enqueued.future()](int device, void* stream) {
      if (!read.contains(device)) return;
      // An event recorded before the last copy is enqueued would not wait for it.
      if (enqueued.error()) return;  // waits until it is known
      devices->copies()->to_host(device).fence(stream);
    };
  }
  {
    std::unique_lock lock(parts_->mutex);
    parts_->wait_for_room(lock);
    parts_->require_open("save");
    save->submitted_ns = os::monotonic_ns();
    parts_->in_flight.push_back(save);
  }
  handle.previous_failure = parts_->take_previous_failure();
  if (unreachable) {
    parts_->fail_unannounced(save, unreachable);
    return handle;
  }
  parts_->enqueue([parts = parts_.get(), save] { parts->stage(save); });
  saving.unlock();  // close() waits for save calls, and staging may take long
  if (!parts_->config.staging_config.use_async_staging) handle.staged.wait();
  return handle;
}

stage::DeviceAccess& AsyncSave::devices() {
  parts_->check_process();
  return *parts_->devices;
}

void AsyncSave::prepare(const SaveJob& job) {
  parts_->check_process();
  const auto done = std::make_shared<Promise<void>>();
  const Future<void> prepared = done->future();
  Pending turn;  // no save, but in line with them: it waits for those before it only
  {
    const std::scoped_lock saving(parts_->saving);
    {
      const std::scoped_lock lock(parts_->mutex);
      parts_->require_open("prepare");
    }
    turn.submitted_ns = os::monotonic_ns();
    // `job` and `turn` outlive the task: this call waits for it.
    parts_->enqueue([parts = parts_.get(), done, &job, &turn] {
      try {
        (void)parts->generation_for(job, &turn);
        done->set_value();
      } catch (...) {
        done->set_error(std::current_exception());
      }
    });
  }
  try {
    prepared.get();
  } catch (const std::logic_error&) {  // it was dropped
    parts_->check_not_given_up("");
    throw;
  }
}

void AsyncSave::ready() {
  parts_->check_process();
  // One that is replaced ends; then its successor is what is asked for.
  while (!parts_->await_generation("wait for the checkpoint process")->process.ready()) {
  }
}

void AsyncSave::wait_prefaulted() {
  parts_->check_process();
  const std::shared_ptr<Generation> ring = parts_->await_generation("wait for the ring");
  ring::Warmer* warmer = nullptr;
  {
    const std::scoped_lock lock(parts_->mutex);
    warmer = ring->warmer.get();
  }
  if (warmer != nullptr) warmer->wait();
}

std::vector<UnwrittenSave> AsyncSave::wait_written(std::chrono::steady_clock::time_point deadline) {
  parts_->check_process();
  std::vector<std::shared_ptr<Pending>> begun;
  {
    const std::scoped_lock lock(parts_->mutex);
    parts_->require_open("wait for saves");
    begun = parts_->in_flight;
  }
  for (const auto& save : begun) (void)save->written_future.wait_until(deadline);
  std::vector<std::shared_ptr<Pending>> failed;
  {
    const std::scoped_lock lock(parts_->mutex);
    failed = std::exchange(parts_->untold, {});
    std::erase_if(begun, [&](const auto& save) {
      return std::find(parts_->in_flight.begin(), parts_->in_flight.end(), save) ==
             parts_->in_flight.end();
    });
  }
  std::vector<UnwrittenSave> unwritten;
  for (const auto& save : failed) {
    unwritten.push_back({save->report.path, save->written_future.error()});
  }
  for (const auto& save : begun) unwritten.push_back({save->report.path, nullptr});
  return unwritten;
}

void AsyncSave::close() {
  parts_->check_process();
  {
    const std::scoped_lock lock(parts_->mutex);
    if (parts_->closed) return;
    parts_->closed = true;
  }
  parts_->changed.notify_all();
  // A save call under way ends first: what it has begun is waited for.
  { const std::scoped_lock saving(parts_->saving); }
  const double limit = parts_->config.process_config.subprocess_shutdown_timeout_secs;
  const std::uint64_t began = os::monotonic_ns();
  bool patient = parts_->end_tasks();
  while (patient) {
    std::shared_ptr<Pending> oldest;
    {
      const std::scoped_lock lock(parts_->mutex);
      if (parts_->in_flight.empty()) break;
      oldest = parts_->in_flight.front();
    }
    (void)oldest->written_future.wait_for(kProgressLook);
    patient = parts_->secs_without_progress(began) <= limit;
  }
  const auto left = parts_->unended();
  for (const auto& save : left) parts_->finish(save, parts_->closed_too_early(*save));
  if (!parts_->is_left_behind()) {
    if (left.empty()) parts_->drop_generation();
    parts_->end();
  }
  (void)parts_->take_previous_failure();
}

int AsyncSave::process_id() const {
  parts_->check_process();
  const std::shared_ptr<Generation> ring = parts_->current();
  return ring ? ring->process.process_id() : 0;
}

}  // namespace ckptring::save
