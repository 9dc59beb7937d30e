#include "drain/drain_loop.h"

#include "base/align.h"
#include "os/umask.h"
#include "store/block_drain.h"
#include "store/directories.h"
#include "store/file_sink.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <exception>
#include <utility>
#include <vector>

namespace ckptring::drain {
namespace {

/// How long a dead predecessor's writes may take to end before its save fails.
constexpr double kLockTimeoutSecs = 60;
constexpr double kLockRetrySecs = 0.001;
/// Writes submitted together end together, so a queue that is refilled block by block runs dry
/// while checksums are taken. Hence these are taken ahead, for so many blocks, while it is full.
constexpr std::size_t kReadyBlocks = 8;

CheckpointWriterConfig writer_config_of(const ring::Settings& settings) {
  CheckpointWriterConfig config;
  config.mode = static_cast<WriteMode>(settings.write_mode);
  config.queue_depth = settings.queue_depth;
  config.threads = settings.threads;
  config.busy_timeout_secs = settings.busy_timeout_secs;
  return config;
}

/// @param released whether blocks of this save were let go: they are in the temporary, or lost
store::Beginning beginning_after(ring::Progress progress, bool released) {
  switch (progress) {
    case ring::Progress::none:
      return store::Beginning::fresh;
    case ring::Progress::renaming:
      return store::Beginning::renaming;
    default:
      return released ? store::Beginning::completing : store::Beginning::resuming;
  }
}

}  // namespace

DrainLoop::DrainLoop(ring::SegmentView segment, ring::Bells bells, TrainersEnd trainer,
                     store::FileSystem& files, WriterSetup& writer, mode_t own_umask)
    : segment_(segment),
      consumer_(segment, bells),
      trainer_(trainer),
      files_(files),
      writer_(writer),
      writer_config_(writer_config_of(segment.settings())),
      own_umask_(own_umask),
      final_name_(segment, files,
                  [this] { return notice_trainers_end() || consumer_.shutdown_requested(); }),
      log_{segment.settings().global_rank} {}

DrainLoop::End DrainLoop::run(std::uint32_t incarnation) {
  consumer_.start(incarnation);
  try {
    for (;;) {
      // Looked at first: whatever was sealed before the request is seen below.
      const bool shutdown_requested = consumer_.shutdown_requested();
      if (const auto save = consumer_.next_save()) {
        if (trainer_gone_ && is_terminal(consumer_.progress(*save))) return End::trainer_gone;
        log_.save = *save;
        drain_save(*save);
        log_.save = 0;
        continue;
      }
      if (shutdown_requested) return End::shutdown;
      if (trainer_gone_) return End::trainer_gone;
      sleep([this] { return consumer_.next_save() || consumer_.shutdown_requested(); }, -1);
    }
  } catch (const Orphaned&) {
    log_.error("the trainer is gone and nothing reached the disk for {} s: giving up",
               segment_.settings().orphan_timeout_secs);
    return End::orphaned;
  }
}

store::SaveTarget DrainLoop::target_of(std::uint64_t save) const {
  const ring::Description& description = consumer_.record(save).description;
  store::SaveTarget target;
  target.directory = ring::text_of(description.directory, sizeof description.directory);
  target.final_name = ring::text_of(description.final_name, sizeof description.final_name);
  target.temporary_name =
      ring::text_of(description.temporary_name, sizeof description.temporary_name);
  target.missing_levels = description.missing_levels;
  if ((description.umask & ring::kUmaskKnown) != 0) target.umask = description.umask & 0777;
  target.total_bytes = description.total_bytes;
  target.rank = {segment_.settings().global_rank, segment_.settings().global_world_size};
  target.save = save;
  return target;
}

std::unique_ptr<store::SaveSink> DrainLoop::make_sink(const store::SaveTarget& target) {
  if (writer_.writer) return store::make_stream_sink(*writer_.writer, target, writer_.hook.get());
  return store::make_file_sink(files_, writer_config_, target, writer_.hook.get());
}

void DrainLoop::drain_save(std::uint64_t save) {
  const ring::Progress found = consumer_.progress(save);
  if (is_terminal(found)) {  // a predecessor ended it and died before it let its blocks go
    discard(save);
    return;
  }
  const store::SaveTarget target = target_of(save);
  // As if the trainer made the files itself. Not by chmod, which would undo a default ACL.
  const os::ScopedUmask as_the_trainer(target.umask.value_or(own_umask_));
  try {
    Claimed claimed = std::exchange(claimed_, {});
    if (claimed.save != save) claimed = first_look_at(save, target);
    sink_ = std::move(claimed.sink);
    ring::Outcome& outcome = consumer_.outcome(save);
    if (outcome.drain_began_ns == 0) outcome.drain_began_ns = os::monotonic_ns();
    if (failure_noted(save)) {
      // By a predecessor, which died before it had undone the save. As for a rename, nothing is
      // made anew.
      open_sink(save, *sink_, store::Beginning::renaming);
    } else {
      write_and_commit(save, *sink_, claimed.beginning);
      sink_.reset();
      return;
    }
  } catch (const Error& error) {
    note_failure(save, error);
  } catch (const std::exception& error) {
    note_failure(save, Error(ErrorCode::internal, "write",
                             store::path_in(target.directory, target.final_name), error.what()));
  }
  claim_after(save);
  if (sink_) sink_->abort();
  sink_.reset();
  consumer_.set_progress(save, ring::Progress::failed);
  discard(save);
}

/// What is to be done about a save that is neither done nor claimed yet.
DrainLoop::Claimed DrainLoop::first_look_at(std::uint64_t save, const store::SaveTarget& target) {
  const ring::Progress found = consumer_.progress(save);
  const std::uint64_t first = consumer_.record(save).first_position;
  const bool released = consumer_.tail() > first;
  if (found == ring::Progress::none) {
    consumer_.outcome(save) = {};
    consumer_.set_progress(save, ring::Progress::open);
  } else {
    log_.info("going on with {}/{} from block {}", target.directory, target.final_name,
              released ? consumer_.tail() - first : 0);
  }
  return {save, beginning_after(found, released), make_sink(target)};
}

/// Before this save lets go of its name the next one takes its own: whoever looks meanwhile, the
/// restarted trainer for one, finds that a save is under way as long as there is one.
void DrainLoop::claim_after(std::uint64_t save) {
  const std::uint64_t next = save + 1;
  if (writer_.writer) return;  // is given one save after the other
  const ring::Intent wanted = consumer_.intent(next).intent;
  if (wanted != ring::Intent::sealed && wanted != ring::Intent::staging) return;
  try {
    store::SaveTarget target = target_of(next);
    target.earlier_temporary = target_of(save).temporary_name;
    const os::ScopedUmask as_the_trainer(target.umask.value_or(own_umask_));
    if (claimed_.save != next) claimed_ = first_look_at(next, target);
    if (notice_trainers_end()) claimed_.sink->give_way();
    if (claimed_.sink->claim(claimed_.beginning)) final_name_.note_locked(next, target);
  } catch (const std::exception& error) {
    // The next save's, which meets it again in its turn if it lasts.
    log_.debug("not claimed ahead: {}", error.what());
  }
}

void DrainLoop::write_and_commit(std::uint64_t save, store::SaveSink& sink,
                                 store::Beginning beginning) {
  open_sink(save, sink, beginning);
  consumer_.note_step();
  if (beginning != store::Beginning::renaming && drain_blocks(save, sink) == Drained::given_up) {
    undo(save, sink);
    return;
  }
  ring::Outcome& outcome = consumer_.outcome(save);
  outcome.drained_seconds = os::seconds_since(outcome.drain_began_ns);
  const store::SaveTarget target = target_of(save);
  const store::CommitTimes times =
      sink.commit([&](store::CommitPhase phase, const std::string& path) {
        switch (phase) {
          case store::CommitPhase::syncing:
            consumer_.set_progress(save, ring::Progress::syncing);
            break;
          case store::CommitPhase::sync_failed:
            // Not left to the exception that follows: a system call may come before it arrives.
            note_failure(save, Error::from_errno(errno, "fsync", path));
            break;
          case store::CommitPhase::renaming:
            claim_after(save);
            if (!writer_.writer) final_name_.check(save, target);
            consumer_.set_progress(save, ring::Progress::renaming);
            break;
        }
      });
  outcome.fsync_seconds = times.fsync_seconds;
  outcome.commit_seconds = times.commit_seconds;
  for (const std::string& warning : times.warnings) {
    log_.warn("{}", warning);
    if (outcome.warning_count == ring::kWarnings) break;
    ring::copy_text(outcome.warnings[outcome.warning_count++], ring::kTextChars, warning);
  }
  consumer_.set_progress(save, ring::Progress::committed);
  log_.debug("committed");
}

/// Until the lock is held, a predecessor's writes may still read the ring's blocks and write to
/// the temporary.
void DrainLoop::open_sink(std::uint64_t save, store::SaveSink& sink, store::Beginning beginning) {
  // Waiting for another checkpointer has a limit of its own, within begin.
  const double limit = kLockTimeoutSecs + writer_config_.busy_timeout_secs;
  const os::Deadline deadline = os::Deadline::after(limit);
  for (;;) {
    if (notice_trainers_end()) sink.give_way();
    if (sink.begin(beginning)) break;
    if (deadline.passed()) {
      throw Error(ErrorCode::stalled, "lock the temporary file", "",
                  fmt::format("writes of the previous checkpoint process did not end within {:g} s",
                              limit));
    }
    (void)os::wait_any({}, os::Deadline::after(kLockRetrySecs));
  }
  if (!writer_.writer) final_name_.note_locked(save, target_of(save));
}

DrainLoop::Drained DrainLoop::drain_blocks(std::uint64_t save, store::SaveSink& sink) {
  const ring::Description& description = consumer_.record(save).description;
  const std::uint64_t block_bytes = segment_.geometry().block_bytes;
  store::BlockDrain drain(
      store::drain_tables_in(
          consumer_.plan_of(save),
          {description.payload_count, description.fixup_count, description.ledger_count}),
      block_bytes, description.total_bytes);
  std::vector<std::uint64_t> done;
  std::size_t in_flight = 0;
  const auto reap = [&] {
    done.clear();
    sink.reap(done);
    for (const std::uint64_t position : done) consumer_.complete(position);
    in_flight -= done.size();
    return !done.empty();
  };

  std::deque<store::Extent> ready;  // final, in file order, not submitted yet
  for (;;) {
    // Freed blocks may be what the producer sleeps for.
    bool moved = reap();
    for (; !ready.empty() && sink.room() > 0; ++in_flight) {
      sink.submit(ready.front());
      ready.pop_front();
      moved = true;
    }
    if (ready.size() < kReadyBlocks) {
      if (const auto block = consumer_.try_take(save)) {
        if (block->voided) {  // the save is being aborted
          consumer_.complete(block->position);
        } else {
          drain.finalize(block->file_offset,
                         block->memory.first(static_cast<std::size_t>(block->size)));
          ready.push_back({block->position, block->file_offset, block->memory.data(), block->size,
                           base::align_up(block->size, store::Extent::kUnit)});
        }
        continue;
      }
    }

    const ring::IntentView wanted = consumer_.intent(save);
    if (wanted.intent == ring::Intent::aborted) return Drained::given_up;
    if (wanted.intent == ring::Intent::sealed && consumer_.tail() >= wanted.end_position) {
      return Drained::sealed;
    }
    if (trainer_gone_ && will_not_be_sealed(save)) return Drained::given_up;
    if (moved) continue;
    if (ready.size() == kReadyBlocks) {
      // Whatever the trainer does, it concerns nobody before a write has ended; it need not ring.
      wait_for_write(sink.completion_fd());
      continue;
    }
    sleep(
        [&] { return consumer_.can_take(save) || consumer_.intent(save).intent != wanted.intent; },
        in_flight > 0 ? sink.completion_fd() : -1);
  }
}

/// The trainer's last word counts, and it was stored before its end could be noticed: a program
/// gives way to another one once all of its threads have ended.
bool DrainLoop::will_not_be_sealed(std::uint64_t save) {
  return consumer_.intent(save).intent == ring::Intent::staging;
}

void DrainLoop::undo(std::uint64_t save, store::SaveSink& sink) {
  claim_after(save);
  sink.abort();
  const ring::IntentView wanted = consumer_.intent(save);
  if (wanted.intent == ring::Intent::aborted) consumer_.release_through(wanted.end_position);
  ring::Outcome& outcome = consumer_.outcome(save);
  outcome.error_code = static_cast<std::int32_t>(ErrorCode::aborted);
  consumer_.set_progress(save, ring::Progress::aborted);
  log_.info("undone: {}",
            trainer_gone_ ? "the trainer ended before it was staged" : "the trainer gave it up");
}

/// Before anything else is done about a failure: whoever repeated a failed fsync would be told of
/// success over lost bytes.
void DrainLoop::note_failure(std::uint64_t save, const Error& error) {
  if (failure_noted(save)) return;
  ring::Outcome& outcome = consumer_.outcome(save);
  outcome.errno_value = error.errno_value();
  ring::copy_text(outcome.operation, sizeof outcome.operation, error.operation());
  ring::copy_text(outcome.path, sizeof outcome.path, error.path());
  ring::copy_text(outcome.cause, sizeof outcome.cause, error.cause());
  // Last: with it the others are whole, also to a successor. The trainer waits for OUTCOME.
  std::atomic_ref(outcome.error_code)
      .store(static_cast<std::int32_t>(error.code()), std::memory_order_release);
  log_.info("failed: {}", error.what());
}

bool DrainLoop::failure_noted(std::uint64_t save) {
  // Written by this side or by a dead predecessor; no edge needed.
  const auto code = static_cast<ErrorCode>(consumer_.outcome(save).error_code);
  return code != ErrorCode::ok && code != ErrorCode::aborted;
}

/// Lets the blocks of an ended save go unread, once the producer has said where they end.
void DrainLoop::discard(std::uint64_t save) {
  for (;;) {
    const ring::IntentView wanted = consumer_.intent(save);
    if (wanted.intent != ring::Intent::staging) {
      consumer_.release_through(wanted.end_position);
      return;
    }
    if (trainer_gone_) return;
    sleep([&] { return consumer_.intent(save).intent != ring::Intent::staging; }, -1);
  }
}

os::Deadline DrainLoop::orphan_deadline() const {
  if (!trainer_gone_) return os::Deadline::never();
  // A hint; this side's own store.
  const std::uint64_t last = segment_.consumer().progress_ns.load(std::memory_order_relaxed);
  return {last + os::to_ns(segment_.settings().orphan_timeout_secs)};
}

/// Whether the trainer is gone, at this moment.
bool DrainLoop::notice_trainers_end() {
  if (!trainer_gone_ && (os::is_ready(trainer_.pidfd) || os::is_ready(trainer_.pipe))) {
    note_trainer_gone();
  }
  return trainer_gone_;
}

void DrainLoop::note_trainer_gone() {
  trainer_gone_ = true;
  consumer_.note_step();  // the orphan's clock begins now
  log_.info("the trainer is gone: finishing what was staged");
}

template <class Moved>
void DrainLoop::sleep(Moved&& moved, int completion_fd) {
  wait(completion_fd, [&](std::span<os::Waitable> others, os::Deadline deadline) {
    return consumer_.sleep(std::forward<Moved>(moved), others, deadline);
  });
}

void DrainLoop::wait_for_write(int completion_fd) {
  wait(completion_fd, [](std::span<os::Waitable> others, os::Deadline deadline) {
    return os::wait_any(others, deadline);
  });
}

/// `until_moved` returns whether what it waited for has happened; or one of the others is ready, or
/// the deadline has passed.
template <class UntilMoved>
void DrainLoop::wait(int completion_fd, UntilMoved&& until_moved) {
  std::array<os::Waitable, 3> others{os::Waitable{completion_fd},
                                     os::Waitable{trainer_gone_ ? -1 : trainer_.pidfd},
                                     os::Waitable{trainer_gone_ ? -1 : trainer_.pipe}};
  const os::Deadline deadline = orphan_deadline();
  const bool moved = until_moved(others, deadline);
  if (others[1].ready || others[2].ready) {
    note_trainer_gone();
    return;
  }
  if (!moved && !others[0].ready && deadline.passed()) throw Orphaned{};
}

}  // namespace ckptring::drain
