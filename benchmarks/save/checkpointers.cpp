#include "save/checkpointers.h"

#include "save/figures.h"
#include "support/process.h"
#include "support/progress.h"
#include "support/stopwatch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <stop_token>
#include <thread>
#include <utility>

namespace bench {
namespace {

const ckptring::SaveOptions kSaveOptions{.step = 1, .metadata = {}};

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::uint64_t ring_bytes(const Setting& setting, double share) {
  const std::uint64_t block = setting.config.process_config.block_bytes;
  const auto bytes = static_cast<std::uint64_t>(share * static_cast<double>(setting.file_bytes));
  return std::max(round_up(bytes, block) + (share >= 1 ? 2 * block : 0), 2 * block);
}

ckptring::CheckpointerConfig config_for(const Setting& setting, const AsyncKind& kind) {
  ckptring::CheckpointerConfig config = setting.config;
  config.process_config.ring_bytes = ring_bytes(setting, kind.ring_share);
  config.staging_config.use_async_staging = kind.async_staging;
  if (!kind.captures) config.staging_config.capture_small_bytes = 0;
  config.staging_config.sample_unchanged = kind.samples;
  return config;
}

/// One checkpointer, from its making to its end.
class AsyncRun {
 public:
  AsyncRun(const WorkDirectory& work, const SavedState& state,
           const ckptring::CheckpointerConfig& config, bool prepare)
      : work_(work), state_(state), config_(config), before_(memory_of(::getpid())) {
    work_.clear();
    const Stopwatch watch;
    checkpointer_ = ckptring::make_async_checkpointer(config_);
    if (!prepare) return;
    checkpointer_->prepare(state_.dict);
    checkpointer_->ready();
    checkpointer_->wait_prefaulted();
    prepared_ = watch.seconds();
  }

  [[nodiscard]] std::optional<double> prepared() const noexcept { return prepared_; }

  SaveFigures save() {
    check_interrupts();
    work_.clear();
    const ::pid_t helper = checkpointer_->process_id();
    const double helper_before = helper != 0 ? cpu_seconds_of(helper) : 0;
    const double own_before = own_cpu_seconds();
    SaveFigures figures;
    const Stopwatch watch;
    const ckptring::SaveHandle save =
        checkpointer_->save(work_.path() + "/async", state_.dict, kSaveOptions);
    figures.returned = watch.seconds();
    save.staged.wait();
    figures.staged = watch.seconds();
    save.written.wait();
    figures.durable = watch.seconds();
    figures.trainer_cpu = own_cpu_seconds() - own_before;
    const ckptring::SaveReport report = save.written.get();
    if (helper != 0 && checkpointer_->process_id() == helper) {
      figures.helper_cpu = cpu_seconds_of(helper) - helper_before;
    }
    figures.planned = report.planned_seconds;
    figures.captured = report.captured_seconds;
    figures.copied = report.staged_seconds;
    figures.stalled = report.stalled_seconds;
    figures.drained = report.drained_seconds;
    figures.fsync = report.fsync_seconds;
    figures.commit = report.commit_seconds;
    restarts_ += report.restarts;
    return figures;
  }

  MemoryFigures look_at_memory() {
    work_.clear();
    const ::pid_t helper = checkpointer_->process_id();
    const ckptring::SaveHandle save =
        checkpointer_->save(work_.path() + "/memory", state_.dict, kSaveOptions);
    ProcessMemory peak;
    std::uint64_t helper_pss = 0;
    const auto look = [&] {
      const ProcessMemory trainer_now = memory_of(::getpid());
      const ProcessMemory helper_now = memory_of(helper);
      peak.pss = std::max(peak.pss, trainer_now.pss + helper_now.pss);
      peak.page_tables =
          std::max(peak.page_tables, trainer_now.page_tables + helper_now.page_tables);
      helper_pss = std::max(helper_pss, memory_without_ring(helper).pss_bytes);
    };
    while (!save.written.ready()) look();
    look();
    (void)save.written.get();
    MemoryFigures figures = growth_of(before_, peak);
    figures.beyond_ring =
        figures.beyond_state - static_cast<double>(config_.process_config.ring_bytes);
    figures.helper_pss = static_cast<double>(helper_pss);
    return figures;
  }

  /// @return what to beware of
  std::vector<std::string> close() {
    checkpointer_->close();
    work_.clear();
    if (restarts_ == 0) return {};
    return {fmt::format("the checkpoint process died {} times", restarts_)};
  }

 private:
  const WorkDirectory& work_;
  const SavedState& state_;
  const ckptring::CheckpointerConfig& config_;
  const ProcessMemory before_;
  std::unique_ptr<ckptring::AsyncCheckpointer> checkpointer_;
  std::optional<double> prepared_;
  std::uint32_t restarts_ = 0;
};

/// One save by the calling thread. Returns the seconds until it was durable.
double save_sync(ckptring::SyncCheckpointer& checkpointer, const WorkDirectory& work,
                 const SavedState& state) {
  work.clear();
  const Stopwatch watch;
  const ckptring::SaveHandle save =
      checkpointer.save(work.path() + "/sync", state.dict, kSaveOptions);
  const double seconds = watch.seconds();
  (void)save.written.get();
  return seconds;
}

}  // namespace

std::uint64_t file_bytes_of(const WorkDirectory& work, const SavedState& state) {
  const auto checkpointer = ckptring::make_sync_checkpointer();
  const std::uint64_t bytes =
      checkpointer->save(work.path() + "/size", state.dict, kSaveOptions).written.get().bytes;
  checkpointer->close();
  work.clear();
  return bytes;
}

SyncSaves::SyncSaves(const Setting& setting)
    : SaveContestant("sync", "ckptring sync"), setting_(setting) {}

RunFigures SyncSaves::run(int round) {
  const SavedState& state = setting_.states.get(setting_.spec);
  const ProcessMemory before = memory_of(::getpid());
  const auto checkpointer = ckptring::make_sync_checkpointer(setting_.config);
  const auto save = [&] {
    check_interrupts();
    const double cpu_before = own_cpu_seconds();
    SaveFigures figures;
    figures.durable = save_sync(*checkpointer, setting_.work, state);
    figures.returned = figures.durable;
    figures.trainer_cpu = own_cpu_seconds() - cpu_before;
    return figures;
  };
  RunFigures run;
  run.first = save();
  run.steady = median_of(setting_.saves, save);
  if (round == 0) {
    ProcessMemory peak;
    {
      const std::jthread looks([&peak](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          const ProcessMemory now = memory_of(::getpid());
          peak.pss = std::max(peak.pss, now.pss);
          peak.page_tables = std::max(peak.page_tables, now.page_tables);
        }
      });
      (void)save_sync(*checkpointer, setting_.work, state);
    }
    run.memory = growth_of(before, peak);
  }
  checkpointer->close();
  setting_.work.clear();
  return run;
}

AsyncSaves::AsyncSaves(const Setting& setting, std::string id, std::string label,
                       const AsyncKind& kind)
    : SaveContestant(std::move(id), std::move(label)), setting_(setting), kind_(kind) {}

RunFigures AsyncSaves::run(int round) {
  const SavedState& state = setting_.states.get(kind_.of.value_or(setting_.spec));
  const ckptring::CheckpointerConfig config = config_for(setting_, kind_);
  AsyncRun saves(setting_.work, state, config, kind_.prepared);
  RunFigures run;
  run.prepared = saves.prepared();
  run.first = saves.save();
  run.steady = median_of(setting_.saves, [&] { return saves.save(); });
  if (round == 0) run.memory = saves.look_at_memory();
  run.notes = saves.close();
  return run;
}

}  // namespace bench
