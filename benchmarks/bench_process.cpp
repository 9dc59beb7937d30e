// What the start and the death of a checkpoint process cost, by the trainer's size
#include "lifetime/orphan.h"
#include "lifetime/resident.h"
#include "lifetime/restart.h"
#include "lifetime/start.h"
#include "support/command.h"
#include "support/noise_state.h"
#include "support/report.h"
#include "support/work_directory.h"

#include <ckptring/config.h>
#include <ckptring/log.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace {

using bench::Goal;
using bench::Series;

constexpr double kMebibyte = 1 << 20;
constexpr double kGibibyte = 1 << 30;
/// Of the save that comes right after a start: more than the two blocks of the ring that is made
/// before any save is known.
constexpr std::uint64_t kFirstSaveBytes = 16 << 20;

struct Options {
  int rounds = 15;
  std::vector<double> resident_gib{0.1, 1, 8};
  std::uint64_t state_mib = 256;
};

/// The figures of one trainer's size.
struct OfSize {
  explicit OfSize(double gib)
      : resident_gib(gib),
        spawned(series("spawned", "clone and exec alone", "ms")),
        made(series("made", "making a checkpointer held the caller", "ms")),
        ready(series("ready", "until its checkpoint process was ready", "ms")),
        first_ready(series("first_ready", "first save, until its process was ready", "ms")),
        first_durable(series("first_durable", "first save (16 MiB), until durable", "ms")),
        forked(series("forked", "beside it: a bare fork of the trainer", "ms")),
        started(series("started", "until another process was started", "ms")),
        draining(series("draining", "until it wrote again", "ms")),
        beyond(series("beyond", "the same beyond the dead one's writes in flight", "ms")),
        rewritten(series("rewritten", "written twice, per kill", "MiB")) {}

  [[nodiscard]] Series series(const char* id, const char* label, const char* unit) const {
    return {fmt::format("{}_{:g}gib", id, resident_gib),
            fmt::format("{:g} GiB resident: {}", resident_gib, label),
            unit,
            {}};
  }
  void add(const bench::StartTimes& times) {
    spawned.add(times.spawned * 1e3);
    made.add(times.made * 1e3);
    ready.add(times.ready * 1e3);
    first_ready.add(times.first_ready * 1e3);
    first_durable.add(times.first_durable * 1e3);
  }
  void add(const bench::RestartTimes& times) {
    started.add(times.started * 1e3);
    draining.add(times.draining * 1e3);
    beyond.add(times.beyond * 1e3);
    rewritten.add(times.rewritten_bytes / kMebibyte);
  }

  double resident_gib;
  Series spawned;
  Series made;
  Series ready;
  Series first_ready;
  Series first_durable;
  Series forked;
  Series started;
  Series draining;
  Series beyond;
  Series rewritten;
};

class ProcessBenchmark {
 public:
  ProcessBenchmark(const Options& options, const std::string& directory)
      : options_(options),
        work_(directory),
        state_(options.state_mib << 20),
        first_state_(kFirstSaveBytes) {
    ckptring::set_log_level(ckptring::LogLevel::error);
    bench::adopt_orphans();
    for (const double gib : options.resident_gib) sizes_.emplace_back(gib);
  }

  bench::Report run() {
    // Up and down again, so that a drift of the machine is not taken for growth.
    const int half = (options_.rounds + 1) / 2;
    for (const int rounds : {half, options_.rounds - half}) {
      for (OfSize& size : sizes_) measure(size, rounds);
      std::reverse(sizes_.begin(), sizes_.end());
    }
    for (int i = 0; i < options_.rounds; ++i) {
      progress("trainers killed", i);
      const bench::OrphanTimes times =
          bench::measure_orphan(config(), work_.path(), state_, options_.state_mib << 20);
      orphan_left_.add(times.left_bytes / kMebibyte);
      orphan_committed_.add(times.committed * 1e3);
      orphan_ended_.add(times.ended * 1e3);
      work_.clear();
    }
    if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\033[K");
    return make_report();
  }

 private:
  static void progress(const std::string& what, int done) {
    if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\033[K{}: {}", what, done);
  }

  /// For saves that are cut off: the ring holds all of one, and is populated before.
  [[nodiscard]] ckptring::CheckpointerConfig config() const {
    ckptring::CheckpointerConfig config;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.ring_bytes = (options_.state_mib + 16) << 20;
    return config;
  }

  void measure(OfSize& size, int rounds) {
    const bench::Resident resident(static_cast<std::uint64_t>(size.resident_gib * kGibibyte));
    std::vector<std::function<void()>> kinds{
        [&] {
          // At some point of the save's way to the disk.
          const std::uint64_t point = (options_.state_mib << 20) / 8 * (1 + random_() % 6);
          size.add(bench::measure_restart(config(), work_.path(), state_, point));
        },
        [&] { size.add(bench::measure_start(CKPTRING_DRAIN_PATH, work_.path(), first_state_)); },
        [&] { size.forked.add(bench::measure_fork() * 1e3); },
    };
    for (int i = 0; i < rounds; ++i) {
      progress(fmt::format("{:g} GiB resident", size.resident_gib), i);
      for (const auto& kind : kinds) {
        kind();
        work_.clear();
      }
      std::reverse(kinds.begin(), kinds.end());
    }
  }

  bench::Report make_report() {
    bench::Report report("process", {{"rounds", options_.rounds},
                                     {"resident_gib", options_.resident_gib},
                                     {"state_mib", options_.state_mib},
                                     {"first_save_bytes", kFirstSaveBytes}});
    report.heading("A checkpoint process is started");
    for (const OfSize& size : sizes_) {
      for (const Series* one : {&size.spawned, &size.made, &size.ready, &size.first_ready,
                                &size.first_durable, &size.forked}) {
        report.add(*one);
      }
    }
    report.heading("It is killed while it writes");
    for (const OfSize& size : sizes_) {
      for (const Series* one : {&size.started, &size.draining, &size.beyond, &size.rewritten}) {
        report.add(*one);
      }
    }
    report.heading("The trainer is killed once its save is staged");
    report.add(orphan_left_);
    report.add(orphan_committed_);
    report.add(orphan_ended_);
    for (const OfSize& size : sizes_) report.add(Goal{size.beyond, Goal::Kind::at_most, 10});
    return report;
  }

  Options options_;
  bench::WorkDirectory work_;
  bench::NoiseState state_;
  bench::NoiseState first_state_;
  std::mt19937_64 random_{7};
  std::vector<OfSize> sizes_;
  Series orphan_left_{"orphan_left", "left to write when it died", "MiB", {}};
  Series orphan_committed_{"orphan_committed", "until the file was there", "ms", {}};
  Series orphan_ended_{"orphan_ended", "until the checkpoint process had ended", "ms", {}};
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  return bench::run_command(
      argc, argv,
      {.name = "bench_process",
       .description = "What the start and the death of a checkpoint process cost",
       .add_options =
           [&](CLI::App& app) {
             app.add_option("--rounds", options.rounds,
                            "starts, kills and forks for each size, and trainers killed")
                 ->check(CLI::Range(1, 1000))
                 ->capture_default_str();
             app.add_option("--resident", options.resident_gib, "sizes of the trainer, in GiB")
                 ->check(CLI::Range(0.01, 1024.0))
                 ->capture_default_str();
             app.add_option("--state", options.state_mib, "what is saved and cut off, in MiB")
                 ->check(CLI::Range(64, 65536))
                 ->capture_default_str();
           },
       .measure = [&](const std::string& directory,
                      bench::NumbersFile&) { return ProcessBenchmark(options, directory).run(); },
       .goals_must_be_reached = false});
}
