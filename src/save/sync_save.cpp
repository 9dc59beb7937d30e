#include "save/sync_save.h"

#include "base/log.h"
#include "os/clock.h"
#include "os/poll.h"
#include "save/follow_streams.h"
#include "save/inline_drain.h"
#include "store/directories.h"
#include "store/file_at.h"
#include "store/file_sink.h"

#include <ckptring/error.h>

#include <algorithm>
#include <iterator>
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

}  // namespace

SyncSave::SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer)
    : config_(config),
      rank_(rank),
      writer_(std::move(writer)),
      saved_(rank.global_rank),
      devices_(base::LogContext{rank.global_rank}) {}

SyncSave::~SyncSave() { close(); }

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
  ++number_;
  SaveReport report;
  report.planned_seconds = job.planned_seconds;
  report.bytes = job.plan.total_bytes();
  store::FileSystem& files = store::system_files();
  store::SaveTarget target = store::make_target(files, job.path, rank_, job.plan.total_bytes());
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

void SyncSave::close() const noexcept { saved_.close(kLastLookSecs); }

}  // namespace ckptring::save
