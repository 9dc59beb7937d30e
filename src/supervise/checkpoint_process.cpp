#include "supervise/checkpoint_process.h"

#include "base/system_words.h"
#include "drain/drain_protocol.h"
#include "os/eventfd.h"
#include "os/new_fd.h"
#include "os/pidfd.h"
#include "os/poll.h"
#include "os/spawn.h"
#include "ring/doorbell.h"
#include "ring/progress_of.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>
#include <vector>

namespace ckptring::supervise {
namespace {

/// While a save is in flight, time-outs are looked at this often, or twice within the shortest.
constexpr double kLookSecs = 1.0;
constexpr double kShortestLookSecs = 0.01;
/// A longer gap between two looks means that this process itself was stopped.
constexpr double kFrozenSecs = 5.0;
/// How long a killed process may take to be gone before it counts as unkillable.
constexpr double kKillSecs = 5.0;

double back_off_secs(std::uint32_t restarts) {
  constexpr std::array<double, 5> kSteps{0, 0.01, 0.05, 0.25, 1.0};
  return kSteps[std::min<std::size_t>(restarts, kSteps.size() - 1)];
}

/// A shortage passes by itself; whatever else keeps a program from being started does not.
bool may_pass(const Error& error) {
  switch (error.errno_value()) {
    case EAGAIN:  // too many processes
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ETXTBSY:  // it is being installed
      return true;
    default:
      return false;
  }
}

double look_secs(const CheckpointProcessConfig& config) {
  const double shortest = std::min({config.subprocess_init_timeout_secs, config.stall_timeout_secs,
                                    config.stopped_timeout_secs});
  return std::clamp(shortest / 2, kShortestLookSecs, kLookSecs);
}

/// @param refusal  of the system to send the signal, an errno; 0: it had no effect
std::string cannot_be_killed(int refusal) {
  if (refusal == 0) return fmt::format(" and does not die of SIGKILL within {:g} s", kKillSecs);
  std::string words = " and cannot be killed: " + base::words_of_errno(refusal);
  // The usual reason. Who started it may do it; this process has become somebody else.
  if (refusal == EPERM) words += " (has this process changed its user since it started it?)";
  return words;
}

struct Pipe {
  os::UninheritedFd read_end;
  os::UninheritedFd write_end;
};

Pipe make_pipe() {
  os::ForksHeld held;
  const os::StandardNumbersTaken taken;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error::from_errno(errno, "make a pipe", "");
  os::UniqueFd read_end = os::above_standard_numbers(ends[0]);
  os::UniqueFd write_end = os::above_standard_numbers(ends[1]);
  if (!read_end || !write_end || ::fcntl(read_end.get(), F_SETFL, O_NONBLOCK) != 0) {
    throw Error::from_errno(errno, "make a pipe", "");
  }
  return {{held, std::move(read_end)}, {held, std::move(write_end)}};
}

os::UninheritedFd make_bell() {
  return os::UninheritedFd::made_by([] { return os::make_eventfd(); });
}

}  // namespace

CheckpointProcess::CheckpointProcess(const CheckpointProcessConfig& config, DrainProgram& program,
                                     RankInfo rank, const ring::Segment& segment,
                                     const ring::BellSet& bells, const ring::Producer& producer,
                                     OnOutcome on_outcome, OnUnfilled on_unfilled)
    : config_(config),
      program_(program),
      rank_(rank),
      segment_(segment),
      bells_(bells),
      producer_(producer),
      on_outcome_(std::move(on_outcome)),
      on_unfilled_(std::move(on_unfilled)),
      log_{rank.global_rank},
      trainer_pidfd_(os::UninheritedFd::made_by([] { return os::open_pidfd(::getpid()); })),
      wake_bell_(make_bell()),
      given_up_bell_(make_bell()),
      credentials_(os::Credentials::of_this_thread()),
      last_look_ns_(os::monotonic_ns()),
      thread_("ckptring-watch", os::OwnThread::Priority::foreground, [this] { watch(); }) {}

CheckpointProcess::~CheckpointProcess() {
  // SHUTDOWN; seq_cst for DOORBELL.
  segment_.view().supervisor().shutdown.store(1, std::memory_order_seq_cst);
  ring::ring_if_asleep(segment_.view().consumer().data_sleeping, bells_.bells().data);
  {
    const std::scoped_lock lock(mutex_);
    detaching_ = true;
  }
  changed_.notify_all();
  os::ring_bell(wake_bell_.get());
  thread_.join();
  try {
    leave_to_a_process();
  } catch (const std::exception& error) {
    log_.error("the checkpoint process is left, and perhaps with it saves: {}", error.what());
  }
  if (!helper_runs()) return;
  leave_helper();
}

/// It may have a disk to wait for; this object has not. Somebody must hand its log on, and collect
/// its exit status.
void CheckpointProcess::leave_helper() noexcept {
  struct Left {
    os::UninheritedFd pidfd;
    std::optional<LogReader> log;
    Left* next = nullptr;
  };
  Left* left = nullptr;
  try {
    left = new Left{std::move(pidfd_), std::move(log_reader_)};
    os::OwnThread("ckptring-reap", os::OwnThread::Priority::background, [left] {
      const std::unique_ptr<Left> owned(left);
      for (bool ended = false; !ended;) {
        std::array<os::Waitable, 2> news{os::Waitable{left->pidfd.get()},
                                         os::Waitable{left->log->fd()}};
        (void)os::wait_any(news, os::Deadline::never());
        left->log->pump();
        ended = news[0].ready;
      }
      (void)os::reap(left->pidfd.get());
    }).detach();
  } catch (const std::exception& error) {
    log_.info("the checkpoint process stays unreaped: {}", error.what());
    if (left == nullptr) return;
    // Its log's pipe stays open: closed, it would mean the end of this process.
    static std::mutex adding;
    static Left* kept = nullptr;
    const std::scoped_lock lock(adding);
    left->next = std::exchange(kept, left);
  }
}

/// What is still expected needs a process: the one that runs, or the one that was about to be
/// started in its place.
void CheckpointProcess::leave_to_a_process() {
  if (helper_runs()) {
    // A kill of ours that is under way ends it soon.
    const double patience_secs = killed_because_.empty() ? 0 : kKillSecs;
    std::array<os::Waitable, 1> gone{os::Waitable{pidfd_.get()}};
    if (os::wait_any(gone, os::Deadline::after(patience_secs))) on_death();
  }
  const auto needs_one = [this] {
    const std::scoped_lock lock(mutex_);
    return !helper_runs() && !given_up_ && !expected_.empty();
  };
  // The first one at once; each that cannot be started uses up the restarts.
  while (needs_one()) {
    start();
    if (needs_one()) (void)os::wait_any({}, os::Deadline{restart_at_ns_});
  }
}

void CheckpointProcess::expect(std::uint64_t save) {
  {
    const std::scoped_lock lock(mutex_);
    expected_.emplace(save, Expected{});
  }
  os::ring_bell(wake_bell_.get());
}

bool CheckpointProcess::ready() {
  std::unique_lock lock(mutex_);
  // The watching thread ends this wait: by readiness, by the end that was asked for, or by giving
  // up after its own time-outs.
  changed_.wait(lock, [this] { return was_ready_ || ended_ || given_up_; });
  if (given_up_) std::rethrow_exception(given_up_);
  return was_ready_;
}

bool CheckpointProcess::given_up() const {
  const std::scoped_lock lock(mutex_);
  return given_up_ != nullptr;
}

os::Credentials CheckpointProcess::credentials() const {
  const std::scoped_lock lock(mutex_);
  return credentials_;
}

void CheckpointProcess::stop_staging() const noexcept { os::ring_bell(given_up_bell_.get()); }

bool CheckpointProcess::shut_down(double timeout_secs) {
  // SHUTDOWN; seq_cst for DOORBELL.
  segment_.view().supervisor().shutdown.store(1, std::memory_order_seq_cst);
  ring::ring_if_asleep(segment_.view().consumer().data_sleeping, bells_.bells().data);
  os::ring_bell(wake_bell_.get());
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(timeout_secs),
                           [this] { return ended_; });
}

std::uint64_t CheckpointProcess::last_activity_ns() const noexcept {
  // A time-out's hint; orders nothing.
  return std::max(segment_.view().consumer().progress_ns.load(std::memory_order_relaxed),
                  producer_.last_publish_ns());
}

void CheckpointProcess::watch() {
  bool started = false;
  bool lost = false;  // what happens is not seen to, and the saves have not been told yet
  for (;;) {
    try {
      if (lost) lost = !give_up_unwatched("memory was short");
      if (!lost) {
        if (!std::exchange(started, true)) start();
        while (look()) {
        }
        return;
      }
    } catch (const std::exception& error) {
      lost = !give_up_unwatched(error.what());
    }
    // What failed may fail again at once.
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::duration<double>(kLookSecs),
                      [this] { return detaching_; });
    if (lost && detaching_) return;  // whoever detaches tells them
  }
}

/// Out of memory, as a rule. That must not end the trainer. A process that nobody can watch is
/// killed, lest it commits what is said to have failed.
/// @return whether the saves have been told; else there was no memory for that either
bool CheckpointProcess::give_up_unwatched(const char* cause) noexcept {
  log_.error("the checkpoint process cannot be watched: {}", cause);
  try {
    const std::string alive = helper_runs() ? kill_and_wait("could not be watched") : "";
    give_up(ErrorCode::process_failed, fmt::format("it cannot be watched: {}{}", cause, alive));
    return true;
  } catch (const std::exception& error) {
    log_.error("nor could its saves be told so: {}", error.what());
    return false;
  }
}

/// Waits for the next thing that happens, and sees to it. @return false: nobody watches any more
bool CheckpointProcess::look() {
  bool now_ready = false;
  {
    const std::scoped_lock lock(mutex_);
    if (detaching_) return false;
    now_ready = helper_runs() && !was_ready_ && is_ready();
    if (now_ready) {
      was_ready_ = true;
      starting_since_ns_ = 0;
      program_.keep(executable_);
      changed_.notify_all();
    }
  }
  if (now_ready) {
    log_.debug("checkpoint process {} ready after {:.1f} ms", process_id(),
               os::seconds_since(started_ns_) * 1e3);
  }
  collect_outcomes();
  std::array<os::Waitable, 3> others{os::Waitable{pidfd_.get()},
                                     os::Waitable{log_reader_ ? log_reader_->fd() : -1},
                                     os::Waitable{wake_bell_.get()}};
  (void)ring::sleep_until(
      segment_.view().supervisor().result_sleeping, bells_.bells().result,
      [this] { return has_news(); }, others, next_check());
  if (others[2].ready) os::clear_bell(wake_bell_.get());
  if (others[1].ready) log_reader_->pump();
  if (others[0].ready) on_death();
  check_timeouts();
  return true;
}

void CheckpointProcess::start() {
  restart_at_ns_ = 0;
  started_ns_ = os::monotonic_ns();
  if (starting_since_ns_ == 0) starting_since_ns_ = started_ns_;
  ++incarnation_;
  try {
    {
      // Those of all threads may have changed since the last start.
      os::Credentials now = os::Credentials::of_this_thread();
      const std::scoped_lock lock(mutex_);
      credentials_ = std::move(now);
    }
    os::SpawnRequest request;
    executable_ = program_.executable();
    request.executable = executable_.path;
    if (executable_.file) request.program = executable_.file->get();
    request.arguments = {request.executable,
                         drain::kProtocolOption + std::to_string(ring::kProtocolVersion),
                         drain::kIncarnationOption + std::to_string(incarnation_)};
    request.environment = program_.environment();
    const os::UninheritedFd null = os::open_uninherited("/dev/null", O_RDWR);
    if (!null) throw Error::from_errno(errno, "open", "/dev/null");
    Pipe log_pipe = make_pipe();
    const ring::Bells bells = bells_.bells();
    request.descriptors = {null.get(),    null.get(),           log_pipe.write_end.get(),
                           segment_.fd(), trainer_pidfd_.get(), bells.data,
                           bells.space,   bells.result};
    log_reader_.emplace(std::move(log_pipe.read_end), rank_.global_rank);
    os::Spawned started = os::spawn(request);
    pidfd_ = std::move(started.pidfd);
    pid_.store(started.pid, std::memory_order_relaxed);  // for display; orders nothing
    log_.debug("started {} as process {}", request.executable, started.pid);
    if (started.closed_one_by_one) {
      static base::FirstTime first_time;
      if (first_time()) {
        log_.info(
            "close_range is missing (Linux 5.9): the checkpoint process's descriptors are "
            "closed one by one, and it starts more slowly");
      }
    }
  } catch (const Error& error) {
    if (may_pass(error)) {
      start_again_after(std::string("the checkpoint process could not be started: ") + error.what(),
                        "");
    } else {
      give_up(ErrorCode::process_failed, error.what());
    }
  }
}

bool CheckpointProcess::is_ready() const noexcept {
  return segment_.view().consumer().ready.load(std::memory_order_seq_cst) == incarnation_;  // READY
}

bool CheckpointProcess::has_news() const {
  const std::scoped_lock lock(mutex_);
  if (helper_runs() && !was_ready_ && is_ready()) return true;
  return std::any_of(expected_.begin(), expected_.end(), [this](const auto& entry) {
    return ring::is_terminal(ring::progress_of(segment_.view().record(entry.first), entry.first));
  });
}

void CheckpointProcess::collect_outcomes() {
  std::vector<std::uint64_t> ended;
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [save, expected] : expected_) {
      if (ring::is_terminal(ring::progress_of(segment_.view().record(save), save))) {
        ended.push_back(save);
      }
    }
  }
  for (const std::uint64_t save : ended) deliver(save, outcome_of(save));
}

SaveOutcome CheckpointProcess::outcome_of(std::uint64_t save) const {
  const ring::Outcome& from = segment_.view().record(save).outcome;
  SaveOutcome outcome;
  outcome.report.drained_seconds = from.drained_seconds;
  outcome.report.fsync_seconds = from.fsync_seconds;
  outcome.report.commit_seconds = from.commit_seconds;
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(from.warning_count, ring::kWarnings); ++i) {
    outcome.report.warnings.push_back(ring::text_of(from.warnings[i], ring::kTextChars));
  }
  const auto code = static_cast<ErrorCode>(from.error_code);
  if (code == ErrorCode::ok) {
    outcome.file = from.file;
    outcome.renamed_over = from.renamed_over;
    return outcome;
  }
  if (code == ErrorCode::aborted) {
    outcome.error = std::make_exception_ptr(
        Error(code, "save", "", "staging was given up; nothing is visible under the final name"));
    return outcome;
  }
  outcome.error = std::make_exception_ptr(
      Error(code, ring::text_of(from.operation, sizeof from.operation),
            ring::text_of(from.path, sizeof from.path),
            ring::text_of(from.cause, sizeof from.cause), from.errno_value));
  return outcome;
}

void CheckpointProcess::deliver(std::uint64_t save, SaveOutcome outcome) {
  {
    const std::scoped_lock lock(mutex_);
    const auto found = expected_.find(save);
    if (found == expected_.end()) return;
    outcome.report.restarts = found->second.restarts;
  }
  if (outcome.error && outcome.report.restarts > 0 && !given_up()) {
    outcome.error = explained_with_last_death(outcome.error);
  }
  {
    const std::scoped_lock lock(mutex_);
    expected_.erase(save);
  }
  if (!outcome.error) idle_restarts_ = 0;
  on_outcome_(save, std::move(outcome));
}

/// A failure that a restarted process reports may well come from its predecessor's death. Without
/// memory for the words it says what it said.
std::exception_ptr CheckpointProcess::explained_with_last_death(
    const std::exception_ptr& failure) const noexcept {
  try {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      return std::make_exception_ptr(Error(error.code(), error.operation(), error.path(),
                                           error.cause() + "; before that, " + last_death_,
                                           error.errno_value()));
    }
  } catch (...) {
    return failure;
  }
}

std::string CheckpointProcess::last_words() const {
  const std::string words = log_reader_ ? log_reader_->last_words() : std::string{};
  return words.empty() ? words : "; its last words: " + words;
}

void CheckpointProcess::on_death() {
  log_reader_->pump();
  collect_outcomes();
  if (is_ready()) {  // it was, perhaps unseen
    starting_since_ns_ = 0;
    program_.keep(executable_);
  }
  const os::ExitStatus status = os::reap(pidfd_.get());
  pidfd_.reset();
  pid_.store(0, std::memory_order_relaxed);  // for display; orders nothing
  const std::string how = std::exchange(killed_because_, {});
  const std::string death = "the checkpoint process " + (how.empty() ? status.in_words() : how);
  {
    const std::scoped_lock lock(mutex_);
    was_ready_ = false;
  }
  if (status.kind == os::ExitStatus::Kind::exited && status.value == drain::kWrongVersion) {
    give_up(ErrorCode::process_failed, death + last_words());
  }
  start_again_after(death, last_words());
}

/// What a death and a start that failed have in common: the budget, and the pause.
void CheckpointProcess::start_again_after(const std::string& death, const std::string& last_words) {
  last_death_ = death + last_words;
  std::uint32_t restarts = 0;
  {
    const std::scoped_lock lock(mutex_);
    // SHUTDOWN: written by this side.
    const bool asked = segment_.view().supervisor().shutdown.load(std::memory_order_relaxed) != 0;
    if (given_up_ || (asked && expected_.empty())) {
      ended_ = true;
      changed_.notify_all();
      return;
    }
    if (expected_.empty()) {
      restarts = ++idle_restarts_;
    } else {
      for (auto& [save, expected] : expected_) ++expected.restarts;
      restarts = expected_.begin()->second.restarts;
    }
  }
  if (restarts > config_.max_restarts) {
    give_up(ErrorCode::process_failed,
            death + " after " + std::to_string(config_.max_restarts) + " restarts" + last_words);
    return;
  }
  log_.warn("{}; starting it again", last_death_);
  // A process that got somewhere before it died is no reason to wait.
  const std::uint64_t tail = segment_.view().consumer().tail.load(std::memory_order_relaxed);
  fruitless_deaths_ = tail == tail_at_death_ ? fruitless_deaths_ + 1 : 0;
  tail_at_death_ = tail;
  restart_at_ns_ = os::monotonic_ns() + os::to_ns(back_off_secs(fruitless_deaths_));
}

/// @return 0: its death will arrive through the pidfd; else why it may not be killed
int CheckpointProcess::kill_helper(std::string why) {
  // It may be gone already.
  if (!os::send_signal(pidfd_.get(), SIGKILL) && errno != ESRCH) return errno;
  killed_because_ = std::move(why) + " and was killed";
  killed_ns_ = os::monotonic_ns();
  return 0;
}

/// @return empty: it has died; else in words, why it has not
std::string CheckpointProcess::kill_and_wait(const std::string& why) {
  if (const int refusal = kill_helper(why); refusal != 0) return cannot_be_killed(refusal);
  std::array<os::Waitable, 1> gone{os::Waitable{pidfd_.get()}};
  const bool died = os::wait_any(gone, os::Deadline::after(kKillSecs));
  collect_outcomes();
  if (died) return {};
  killed_because_.clear();
  return cannot_be_killed(0);
}

/// By SIGSTOP, for so long. One that may not be killed is given up: nobody knows whether it goes
/// on.
void CheckpointProcess::kill_stopped(std::uint64_t secs) {
  const std::string state = fmt::format("was stopped for {} s", secs);
  if (const int refusal = kill_helper(state); refusal != 0) {
    give_up(ErrorCode::stalled, "the checkpoint process " + state + cannot_be_killed(refusal));
  }
}

void CheckpointProcess::check_timeouts() {
  bool busy = false;
  bool gave_up = false;
  std::uint64_t oldest = 0;
  {
    const std::scoped_lock lock(mutex_);
    busy = !expected_.empty();
    if (busy) oldest = expected_.begin()->first;
    gave_up = given_up_ != nullptr;
  }
  if (gave_up) {
    // Saves that were announced while it was being given up.
    if (busy) give_up(ErrorCode::process_failed, "");
    return;
  }
  const std::uint64_t now = os::monotonic_ns();
  if (now - last_look_ns_ > os::to_ns(kFrozenSecs)) activity_floor_ns_ = now;
  last_look_ns_ = now;
  if (starting_since_ns_ != 0 && now - std::max(starting_since_ns_, activity_floor_ns_) >
                                     os::to_ns(config_.subprocess_init_timeout_secs)) {
    never_ready();
    return;
  }
  if (restart_at_ns_ != 0 && now >= restart_at_ns_) start();
  if (!helper_runs()) return;

  const bool starting = !is_ready();
  const std::uint64_t active = std::max({last_activity_ns(), activity_floor_ns_, started_ns_});
  const std::uint64_t age = now > active ? now - active : 0;
  if (!killed_because_.empty()) {  // a kill is under way
    if (now - std::max(killed_ns_, activity_floor_ns_) > os::to_ns(kKillSecs)) {
      give_up(ErrorCode::stalled, "the checkpoint process " + std::exchange(killed_because_, {}) +
                                      "," + cannot_be_killed(0));
    }
    return;
  }
  if ((busy || starting) && age > os::to_ns(config_.stopped_timeout_secs) &&
      os::process_state(process_id()) == 'T') {
    kill_stopped(age / 1'000'000'000u);
    return;
  }
  if (!starting && busy) check_stall(oldest, now);
}

/// Whether the next step of the oldest save is the helper's: a block to write, or an end to make.
/// Else it waits for blocks that are being filled, and a device may take its time for that.
bool CheckpointProcess::is_helpers_turn(std::uint64_t save) const noexcept {
  const ring::SegmentView view = segment_.view();
  // A time-out's hints; order nothing.
  const auto wanted = ring::Word<ring::Intent>::unpack(
      view.record(save).producer_word.load(std::memory_order_relaxed));
  if (wanted.state != ring::Intent::staging) return true;
  const std::uint64_t tail = view.consumer().tail.load(std::memory_order_relaxed);
  return view.slot(tail).published.load(std::memory_order_relaxed) == tail + 1;
}

/// The helper's clock stands still while it has nothing to do.
void CheckpointProcess::check_stall(std::uint64_t save, std::uint64_t now) {
  const auto passed = [&](std::uint64_t since) {
    return now > since && now - since > os::to_ns(config_.stall_timeout_secs);
  };
  const std::uint64_t active = std::max({last_activity_ns(), activity_floor_ns_, started_ns_});
  if (is_helpers_turn(save)) {
    told_unfilled_ = false;
    if (passed(std::max(active, helper_idle_ns_))) stalled();
    return;
  }
  helper_idle_ns_ = now;
  if (!passed(active)) {
    told_unfilled_ = false;
  } else if (!std::exchange(told_unfilled_, true) && on_unfilled_) {
    on_unfilled_(save, static_cast<double>(now - active) / 1e9);
  }
}

/// Nothing reached the disk for too long. A process that hangs in the kernel would hang again, so
/// it is not restarted; one that is killed commits nothing any more, so the saves have failed.
void CheckpointProcess::stalled() {
  const bool hung = os::process_state(process_id()) == 'D';
  std::string cause =
      fmt::format("nothing reached the disk for {:g} s", config_.stall_timeout_secs);
  if (hung) cause += "; the checkpoint process hung in the kernel";
  const std::string alive = kill_and_wait("did nothing");
  if (!alive.empty()) cause += (hung ? "" : "; the checkpoint process did nothing") + alive;
  give_up(ErrorCode::stalled, cause);
}

/// One attempt or several: what did not start in all that time will not.
void CheckpointProcess::never_ready() {
  std::string cause = fmt::format("the checkpoint process did not become ready within {:g} s",
                                  config_.subprocess_init_timeout_secs);
  if (helper_runs()) {
    const std::string alive = kill_and_wait("did not become ready");
    cause += alive.empty() ? " and was killed" : alive;
    cause += last_words();
  }
  if (!last_death_.empty()) cause += "; before that, " + last_death_;
  give_up(ErrorCode::process_failed, cause);
}

void CheckpointProcess::give_up(ErrorCode code, const std::string& cause) {
  std::vector<std::uint64_t> left;
  std::exception_ptr reason;
  {
    const std::scoped_lock lock(mutex_);
    if (!given_up_) {
      given_up_ = std::make_exception_ptr(
          Error(code, "run the checkpoint process", config_.executable, cause));
    }
    reason = given_up_;
    for (const auto& [save, expected] : expected_) left.push_back(save);
  }
  changed_.notify_all();
  os::ring_bell(given_up_bell_.get());
  for (const std::uint64_t save : left) {
    SaveOutcome outcome;
    outcome.error = reason;
    if (ring::progress_of(segment_.view().record(save), save) == ring::Progress::renaming) {
      outcome.error = std::make_exception_ptr(
          Error(ErrorCode::outcome_unknown, "commit", "",
                "the checkpoint process ended between renaming the file and saying so: " + cause));
    }
    deliver(save, std::move(outcome));
  }
}

os::Deadline CheckpointProcess::next_check() const {
  os::Deadline next = os::Deadline::never();
  if (restart_at_ns_ != 0) next = {restart_at_ns_};
  const std::scoped_lock lock(mutex_);
  if (helper_runs() && (!was_ready_ || !expected_.empty())) {
    next = next.earlier(os::Deadline::after(look_secs(config_)));
  }
  return next;
}

}  // namespace ckptring::supervise
