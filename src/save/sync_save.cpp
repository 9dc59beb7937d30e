#include "save/sync_save.h"

#include "base/log.h"
#include "base/out_of_memory.h"
#include "os/clock.h"
#include "os/poll.h"
#include "save/follow_streams.h"
#include "save/inline_drain.h"
#include "store/directories.h"
#include "store/file_at.h"
#include "store/file_sink.h"

#include <ckptring/error.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <string>
#include <utility>

namespace ckptring::save {
namespace {

constexpr double kRetrySecs = 0.001;

/// Another thread may have written meanwhile.
void check_unchanged(const SaveJob& job) {
  if (!job.check_unchanged) return;
  job.check_unchanged(stage::kHost, job.captured);
  for (const DeviceState& state : job.devices) job.check_unchanged(state.device, job.captured);
}

/// What could never work is the caller's to know at once; what the disk says is the future's.
void check_target(const SaveJob& job, const RankInfo& rank) {
  try {
    (void)store::make_target(store::system_files(), job.path, rank, job.plan.total_bytes(),
                             job.file_name);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid_argument) throw;
  }
}

}  // namespace

SyncSave::SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer,
                   bool throw_previous_failure)
    : config_(config),
      rank_(rank),
      throw_previous_failure_(throw_previous_failure),
      failures_(rank.global_rank),
      writer_(std::move(writer)),
      saved_(rank.global_rank),
      devices_(base::LogContext{rank.global_rank}) {}

SyncSave::~SyncSave() {
  try {
    close();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): no memory to log it
  }
}

void SyncSave::check_usable() {
  if (closed_) throw Error(ErrorCode::closed, "save", "", "the checkpointer was closed before");
  if (!throw_previous_failure_) return;
  if (const std::exception_ptr failure = failures_.take_unfetched()) {
    std::rethrow_exception(failure);
  }
}

SaveHandle SyncSave::submit(SaveJob job) {
  check_target(job, rank_);
  const std::scoped_lock lock(running_);
  if (closed_) throw Error(ErrorCode::closed, "save", "", "the checkpointer was closed before");
  SaveHandle handle;
  handle.previous_failure = failures_.take_unfetched();
  Promise<void> staged;
  Promise<SaveReport> written;
  handle.staged = staged.future();
  handle.written = written.future();
  const std::string path = job.path;
  try {
    written.set_value(run_locked(std::move(job)));
    staged.set_value();
  } catch (const std::exception&) {
    const std::exception_ptr error = base::as_error("save to", path, std::current_exception());
    failures_.add(number_, path, handle.written);
    written.set_error(error);
    staged.set_error(error);  // copying and writing end together here
  }
  return handle;
}

PrepareReport SyncSave::prepare(const SaveJob& /*job*/) {
  if (closed_) throw Error(ErrorCode::closed, "prepare", "", "the checkpointer was closed before");
  return {};
}

std::vector<UnwrittenSave> SyncSave::wait_written(
    std::chrono::steady_clock::time_point /*deadline*/) {
  if (closed_) {
    throw Error(ErrorCode::closed, "wait for saves", "", "the checkpointer was closed before");
  }
  return failures_.take_untold();
}

void SyncSave::close() {
  const std::scoped_lock lock(running_);
  if (!closed_.exchange(true)) saved_.close(kLastLookSecs);
  (void)failures_.take_unfetched();
}

PrivateBlocks& SyncSave::blocks_for(const SaveJob& job, std::optional<PrivateBlocks>& unpinned) {
  const std::size_t count = std::size_t{2} * config_.queue_depth;
  if (job.devices.empty()) return unpinned.emplace(count);
  if (!pinned_) {
    auto made = std::make_unique<PinnedBlocks>(count);
    const std::span<std::byte> memory = made->blocks.memory();
    made->pinned =
        devices_.copies()->pin(memory, memory.size(), job.devices.front().device, nullptr);
    pinned_ = std::move(made);
  }
  return pinned_->blocks;
}

SaveReport SyncSave::run(SaveJob job) {
  const std::scoped_lock lock(running_);
  return run_locked(std::move(job));
}

SaveReport SyncSave::run_locked(SaveJob job) {
  ++number_;
  SaveReport report;
  report.planned_seconds = job.planned_seconds;
  report.bytes = job.plan.total_bytes();
  store::FileSystem& files = store::system_files();
  store::SaveTarget target =
      store::make_target(files, job.path, rank_, job.plan.total_bytes(), job.file_name);
  target.save = number_;
  report.path = store::path_in(target.directory, target.final_name);
  const base::LogContext log{rank_.global_rank, number_};
  report.warnings = saved_.warnings_of_replaced(target.device);
  for (const std::string& warning : report.warnings) log.warn("{}", warning);
  SaveToName name(saved_, target);
  const std::unique_ptr<store::SaveSink> sink =
      writer_.writer ? store::make_stream_sink(*writer_.writer, target, writer_.hook.get())
                     : store::make_file_sink(files, config_, target, writer_.hook.get());
  std::optional<PrivateBlocks> unpinned;
  PrivateBlocks& blocks = blocks_for(job, unpinned);  // outlive every write in flight: see abort
  const std::uint64_t began = os::monotonic_ns();
  try {
    // Ends by itself: begin throws busy_elsewhere after busy_timeout_secs.
    while (!sink->begin(store::Beginning::fresh)) {
      (void)os::wait_any({}, os::Deadline::after(kRetrySecs));
    }
    stage::DeviceCopies* const copies = job.devices.empty() ? nullptr : devices_.copies();
    if (copies != nullptr) follow_streams(job, *copies);
    InlineDrain(job, *sink, blocks, copies).run();
    check_unchanged(job);
    job.keep_alive.reset();
    report.drained_seconds = os::seconds_since(began);
    report.staged_seconds = report.drained_seconds;
    os::FileIdentity file{};
    os::FileIdentity replaced{};
    store::CommitTimes times = sink->commit([&](store::CommitPhase phase, const std::string& path) {
      if (phase != store::CommitPhase::renaming || writer_.writer) return;
      file = store::regular_file_at(files, store::path_in(target.directory, target.temporary_name));
      replaced = store::regular_file_at(files, path);
    });
    for (const std::string& warning : name.committed(file, replaced)) {
      log.warn("{}", warning);
      report.warnings.push_back(warning);
    }
    report.fsync_seconds = times.fsync_seconds;
    report.commit_seconds = times.commit_seconds;
    std::ranges::move(times.warnings, std::back_inserter(report.warnings));
  } catch (...) {
    sink->abort();
    if (pinned_) pinned_->blocks.give_back_all();
    throw;
  }
  return report;
}

}  // namespace ckptring::save
