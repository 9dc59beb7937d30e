// What a save costs: until the state may change, until it is durable, in memory and processor time
#include "support/bare_writer.h"
#include "support/command.h"
#include "support/copy_baseline.h"
#include "support/fio.h"
#include "support/gpt2_state.h"
#include "support/machine.h"
#include "support/process.h"
#include "support/report.h"
#include "support/stopwatch.h"
#include "support/warm_memory.h"
#include "support/work_directory.h"

#include <ckptring/checkpointer.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using bench::Goal;
using bench::Series;
using bench::Stopwatch;

constexpr std::uint64_t kPage = 4096;
constexpr int kMemorySaves = 3;
constexpr double kMebibyte = 1 << 20;
const ckptring::SaveOptions kSaveOptions{.step = 1, .metadata = {}};

struct Options {
  int pairs = 9;
  int first_saves = 3;
  double scale = 1;
  unsigned threads = 0;
  bool with_fio = true;
};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler sets it

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

/// What one async save took, in seconds, as the caller sees it.
struct AsyncSave {
  double held;     ///< until `save` returned
  double staged;   ///< from the call until the state might change again
  double durable;  ///< from the call until committed
  ckptring::SaveReport report;
};

class SaveBenchmark {
 public:
  SaveBenchmark(const Options& options, const std::string& directory)
      : options_(options), work_(directory), state_(bench::make_gpt2_state(options.scale)) {
    config_.staging_config.copy_threads =
        options.threads != 0 ? options.threads
                             : std::clamp(std::thread::hardware_concurrency() / 2, 1u, 8u);
  }

  bench::Report run() {
    start();
    measure_memory();
    measure_pairs();
    checkpointer_->close();
    checkpointer_.reset();
    measure_first_saves();
    return make_report();
  }

 private:
  void progress(const std::string& what) const {
    if (interrupted) throw std::runtime_error("interrupted");
    if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\033[K{}", what);
  }

  AsyncSave save_async(ckptring::Checkpointer& checkpointer) {
    const std::string path = work_.path() + "/async";
    AsyncSave result{};
    const Stopwatch watch;
    const ckptring::SaveHandle save = checkpointer.save(path, state_.state, kSaveOptions);
    result.held = watch.seconds();
    save.staged.wait();
    result.staged = watch.seconds();
    save.written.wait();
    result.durable = watch.seconds();
    result.report = save.written.get();
    work_.clear();
    return result;
  }

  /// The checkpointer that all but the first saves go through; populated, and used once.
  void start() {
    progress("the ring");
    memory_before_ = bench::memory_of(::getpid());
    const Stopwatch watch;
    checkpointer_ = ckptring::make_async_checkpointer(config_);
    checkpointer_->prepare(state_.state);
    checkpointer_->ready();
    prepare_.add(watch.seconds() * 1e3);
    checkpointer_->wait_prefaulted();
    prefault_.add(watch.seconds() * 1e3);
    const AsyncSave first = save_async(*checkpointer_);
    first_prepared_.add(first.staged * 1e3);
    file_bytes_ = first.report.bytes;
    ring_bytes_ = bench::memory_without_ring(checkpointer_->process_id()).ring_bytes;
  }

  /// Apart from the timed saves: looking takes the kernel a while, and holds its locks.
  void measure_memory() {
    const ::pid_t helper = checkpointer_->process_id();
    const std::uint64_t ring =
        std::min(ring_bytes_, round_up(file_bytes_, config_.process_config.block_bytes));
    double extra = 0;
    double tables = 0;
    double helper_pss = 0;
    double helper_rss = 0;
    const auto look = [&] {
      const bench::ProcessMemory trainer_now = bench::memory_of(::getpid());
      const bench::ProcessMemory helper_now = bench::memory_of(helper);
      const bench::ProcessWithoutRing own = bench::memory_without_ring(helper);
      // Signed: a little less than the ring is possible too.
      extra = std::max(extra, static_cast<double>(trainer_now.pss + helper_now.pss) -
                                  static_cast<double>(memory_before_.pss + ring));
      tables =
          std::max(tables, static_cast<double>(trainer_now.page_tables + helper_now.page_tables) -
                               static_cast<double>(memory_before_.page_tables));
      helper_pss = std::max(helper_pss, static_cast<double>(own.pss_bytes));
      helper_rss = std::max(helper_rss, static_cast<double>(own.rss_bytes));
    };
    for (int i = 0; i < kMemorySaves; ++i) {
      progress(fmt::format("memory {}/{}", i + 1, kMemorySaves));
      const ckptring::SaveHandle save =
          checkpointer_->save(work_.path() + "/memory", state_.state, kSaveOptions);
      while (!save.written.ready()) look();
      look();
      (void)save.written.get();
      work_.clear();
    }
    extra_memory_.add(extra / kMebibyte);
    page_tables_.add(tables / kMebibyte);
    helper_pss_.add(helper_pss / kMebibyte);
    helper_rss_.add(helper_rss / kMebibyte);
  }

  void measure_pairs() {
    const bench::WarmMemory warm(round_up(file_bytes_, kPage));
    const auto file_image = warm.bytes().first(round_up(file_bytes_, kPage));
    huge_bytes_ = warm.huge_bytes();
    const bench::CopyBaseline copy(state_.payloads, warm.bytes(),
                                   config_.staging_config.copy_threads);
    ckptring::SyncCheckpointer sync(config_.writer_config, {});
    // Once untimed: the first of anything pays for page faults and caches.
    (void)copy.run();
    (void)bench::write_bare(work_.path() + "/bare", file_image);
    (void)save_sync(sync);
    work_.clear();

    const double gigabytes = static_cast<double>(file_bytes_) * 1e-9;
    std::vector<std::function<void()>> sides{
        [&] { add(save_async_counting_cpu()); },
        [&] {
          memcpy_.add(copy.run() * 1e3);
          // Now that the copy has filled the caches, as saves find them.
          walk_.add(bench::walk_state(state_.state) * 1e6);
        },
        [&] { bare_.add(gigabytes / bench::write_bare(work_.path() + "/bare", file_image)); },
        [&] {
          const double cpu_before = bench::own_cpu_seconds();
          sync_.add(gigabytes / save_sync(sync));
          sync_cpu_.add((bench::own_cpu_seconds() - cpu_before) / gigabytes);
        },
    };
    if (options_.with_fio && bench::have_fio()) {
      sides.emplace_back(
          [&] { fio_.add(bench::fio_write_rate(work_.path(), file_bytes_) * 1e-9); });
    }
    for (int pair = 0; pair < options_.pairs; ++pair) {
      progress(fmt::format("pair {}/{}", pair + 1, options_.pairs));
      for (const auto& side : sides) {
        side();
        work_.clear();
        if (interrupted) throw std::runtime_error("interrupted");
      }
      // What comes first and what comes after what must not matter.
      std::reverse(sides.begin(), sides.end());
    }
    sync.close();
  }

  /// @return seconds until durable
  double save_sync(ckptring::SyncCheckpointer& checkpointer) const {
    const Stopwatch watch;
    const ckptring::SaveHandle save =
        checkpointer.save(work_.path() + "/sync", state_.state, kSaveOptions);
    const double seconds = watch.seconds();
    (void)save.written.get();
    return seconds;
  }

  AsyncSave save_async_counting_cpu() {
    const ::pid_t helper = checkpointer_->process_id();
    const double helper_before = bench::cpu_seconds_of(helper);
    const double own_before = bench::own_cpu_seconds();
    AsyncSave save = save_async(*checkpointer_);
    const double own = bench::own_cpu_seconds() - own_before;
    const double helper_now =
        checkpointer_->process_id() == helper ? bench::cpu_seconds_of(helper) : helper_before;
    helper_cpu_.add((helper_now - helper_before) / static_cast<double>(file_bytes_) * 1e9);
    trainer_cpu_.add(own / static_cast<double>(file_bytes_) * 1e9);
    return save;
  }

  void add(const AsyncSave& save) {
    staged_.add(save.staged * 1e3);
    held_.add(save.held * 1e3);
    async_.add(static_cast<double>(save.report.bytes) * 1e-9 / save.durable);
    planned_.add(save.report.planned_seconds * 1e3);
    planned_per_tensor_.add(save.report.planned_seconds * 1e6 /
                            static_cast<double>(state_.tensors));
    copied_.add(save.report.staged_seconds * 1e3);
    stalled_.add(save.report.stalled_seconds * 1e3);
    drained_.add(save.report.drained_seconds * 1e3);
    fsync_.add(save.report.fsync_seconds * 1e3);
    commit_.add(save.report.commit_seconds * 1e3);
    restarts_ += save.report.restarts;
  }

  /// A trainer that saves without preparing: the ring is made and populated while it is filled.
  void measure_first_saves() {
    for (int i = 0; i < options_.first_saves; ++i) {
      progress(fmt::format("first save {}/{}", i + 1, options_.first_saves));
      const auto fresh = ckptring::make_async_checkpointer(config_);
      const AsyncSave save = save_async(*fresh);
      first_cold_.add(save.staged * 1e3);
      first_cold_held_.add(save.held * 1e3);
      fresh->close();
    }
    progress("");
  }

  bench::Report make_report() {
    bench::Report report("save", {{"pairs", options_.pairs},
                                  {"scale", options_.scale},
                                  {"copy_threads", config_.staging_config.copy_threads},
                                  {"tensors", state_.tensors},
                                  {"file_bytes", file_bytes_},
                                  {"ring_bytes", ring_bytes_},
                                  {"block_bytes", config_.process_config.block_bytes},
                                  {"queue_depth", config_.writer_config.queue_depth},
                                  {"warm_memory_in_huge_pages", huge_bytes_},
                                  {"file_system", bench::file_system_of(work_.path())}});
    report.heading("Until the state may change again");
    for (const Series& series : {staged_, memcpy_, held_, first_prepared_, first_cold_,
                                 first_cold_held_, prepare_, prefault_}) {
      report.add(series);
    }
    report.heading("Until it is durable");
    for (const Series& series : {async_, sync_, bare_, fio_}) report.add(series);
    report.heading("Where the time of an async save goes");
    for (const Series& series : {planned_, copied_, stalled_, drained_, fsync_, commit_}) {
      report.add(series);
    }
    report.heading("Planning");
    Series walk_per_tensor{
        "walk_per_tensor", "walk over the tensors' metadata, per tensor", "us", {}};
    Series beyond_walk{"planning_beyond_walk", "planning beyond the walk, per tensor", "us", {}};
    for (std::size_t i = 0; i < walk_.samples.size(); ++i) {
      walk_per_tensor.add(walk_.samples[i] / static_cast<double>(state_.tensors));
      beyond_walk.add(planned_per_tensor_.samples[i] - walk_per_tensor.samples[i]);
    }
    report.add(planned_per_tensor_);
    report.add(walk_per_tensor);
    report.heading("Processor time per GB written");
    for (const Series& series : {helper_cpu_, trainer_cpu_, sync_cpu_}) report.add(series);
    report.heading("Memory, highest seen");
    for (const Series& series : {helper_rss_, page_tables_}) report.add(series);

    const auto ratio = [](std::string id, std::string label, const Series& above,
                          const Series& below) {
      return Series{std::move(id), std::move(label), "x", bench::ratios(above, below)};
    };
    report.add(Goal{ratio("staged_to_memcpy", "staged, to memcpy", staged_, memcpy_),
                    Goal::Kind::at_most, 1.5});
    report.add(
        Goal{ratio("async_to_bare", "async durable rate, to the bare writer's", async_, bare_),
             Goal::Kind::at_least, 0.8});
    report.add(Goal{ratio("sync_to_bare", "sync durable rate, to the bare writer's", sync_, bare_),
                    Goal::Kind::at_least, 0.8});
    report.add(Goal{extra_memory_, Goal::Kind::at_most, 32});
    report.add(Goal{helper_pss_, Goal::Kind::at_most, 16});
    report.add(Goal{beyond_walk, Goal::Kind::at_most, 1});

    if (ring_bytes_ < file_bytes_) report.note("the ring is smaller than the file: it streams");
    if (restarts_ != 0) report.note(fmt::format("the checkpoint process died {} times", restarts_));
    if (huge_bytes_ < file_bytes_) {
      report.note("not all of the memory to compare with is in huge pages");
    }
    if (options_.scale != 1) report.note("scaled: the goals are meant for the whole state");
    if (fio_.samples.empty()) report.note("without fio");
    return report;
  }

  const Options options_;
  const bench::WorkDirectory work_;
  const bench::Gpt2State state_;
  ckptring::CheckpointerConfig config_;
  std::unique_ptr<ckptring::AsyncCheckpointer> checkpointer_;
  bench::ProcessMemory memory_before_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t ring_bytes_ = 0;
  std::uint64_t huge_bytes_ = 0;
  std::uint32_t restarts_ = 0;

  Series staged_{"staged", "async: save until staged", "ms", {}};
  Series memcpy_{"memcpy", "memcpy of the same bytes", "ms", {}};
  Series held_{"held", "async: save held the caller", "ms", {}};
  Series first_prepared_{"first_prepared", "first save after prepare, until staged", "ms", {}};
  Series first_cold_{"first_cold", "first save without prepare, until staged", "ms", {}};
  Series first_cold_held_{"first_cold_held", "first save without prepare held", "ms", {}};
  Series prepare_{"prepare", "making checkpointer and ring, until ready", "ms", {}};
  Series prefault_{"prefault", "the same until the ring is populated", "ms", {}};
  Series async_{"async_rate", "async, from save to durable", "GB/s", {}};
  Series sync_{"sync_rate", "sync, from save to durable", "GB/s", {}};
  Series bare_{"bare_rate", "bare O_DIRECT writer, without checksums", "GB/s", {}};
  Series fio_{"fio_rate", "fio", "GB/s", {}};
  Series planned_{"planned", "planned", "ms", {}};
  Series copied_{"copied", "staged, from the end of planning", "ms", {}};
  Series stalled_{"stalled", "stalled on a full ring", "ms", {}};
  Series drained_{"drained", "drained", "ms", {}};
  Series fsync_{"fsync", "fsync", "ms", {}};
  Series commit_{"commit", "commit", "ms", {}};
  Series planned_per_tensor_{"planned_per_tensor", "planning, walk included, per tensor", "us", {}};
  Series walk_{"walk", "walk", "us", {}};
  Series helper_cpu_{"helper_cpu", "checkpoint process", "s/GB", {}};
  Series trainer_cpu_{"trainer_cpu", "trainer, async", "s/GB", {}};
  Series sync_cpu_{"sync_cpu", "trainer, sync", "s/GB", {}};
  Series extra_memory_{"extra_memory", "trainer and helper, beyond the ring", "MiB", {}};
  Series helper_pss_{"helper_pss", "helper, without the ring (PSS)", "MiB", {}};
  Series helper_rss_{"helper_rss", "helper, without the ring, libraries whole", "MiB", {}};
  Series page_tables_{"page_tables", "page tables of both, beyond the trainer's before", "MiB", {}};
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  // What was written so far is removed on the way out.
  for (const int signal : {SIGINT, SIGTERM}) {
    (void)std::signal(signal, [](int) { interrupted = true; });
  }
  return bench::run_command(
      argc, argv,
      {.name = "bench_save",
       .description = "What a save costs, beside a memcpy and a bare writer of the same bytes",
       .add_options =
           [&](CLI::App& app) {
             app.add_option("--pairs", options.pairs, "rounds in which everything is measured once")
                 ->check(CLI::Range(1, 1000))
                 ->capture_default_str();
             app.add_option("--first-saves", options.first_saves,
                            "fresh checkpointers to save with once")
                 ->check(CLI::Range(0, 100))
                 ->capture_default_str();
             app.add_option("--scale", options.scale, "share of GPT-2 small's size, for quick runs")
                 ->check(CLI::Range(0.001, 16.0))
                 ->capture_default_str();
             app.add_option("--threads", options.threads,
                            "that copy (default: half of the cores, at most 8)")
                 ->check(CLI::Range(1, 256));
             app.add_flag("!--no-fio", options.with_fio, "leave fio out");
           },
       .measure =
           [&](const std::string& directory) { return SaveBenchmark(options, directory).run(); },
       .goals_must_be_reached = false});
}
