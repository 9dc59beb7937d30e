// What many saves leave behind: memory, descriptors, threads and processes of both sides
#include "support/command.h"
#include "support/noise_state.h"
#include "support/process.h"
#include "support/report.h"
#include "support/work_directory.h"

#include "save/async_save.h"

#include <ckptring/log.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using bench::Goal;
using bench::Series;

constexpr double kMebibyte = 1 << 20;
constexpr int kSamples = 200;
/// Processes are looked at when they have been left alone for so long.
constexpr std::chrono::milliseconds kPause{3};
constexpr std::chrono::seconds kSettled{30};

struct Options {
  int saves = 10'000;
  int kill_every = 50;
};

std::size_t entries_of(const std::string& directory) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(directory), {}));
}

/// Memory in MiB, descriptors, threads and child processes of one process.
struct Counts {
  double memory;
  double descriptors;
  double threads;
  double children;

  explicit Counts(pid_t process)
      : memory(static_cast<double>(bench::memory_of(process).pss_anonymous) / kMebibyte) {
    const std::string folder = "/proc/" + std::to_string(process);
    descriptors = static_cast<double>(entries_of(folder + "/fd"));
    threads = 0;
    children = 0;
    for (const auto& task : std::filesystem::directory_iterator(folder + "/task")) {
      ++threads;
      std::ifstream in(task.path() / "children");
      children += static_cast<double>(
          std::distance(std::istream_iterator<int>(in), std::istream_iterator<int>()));
    }
  }
};

/// One quantity over the saves, and by how much its end is above its beginning.
class Growth {
 public:
  Growth(const char* id, const char* label, const char* unit) : series_{id, label, unit, {}} {}

  void add(double sample) { series_.add(sample); }
  [[nodiscard]] const Series& series() const { return series_; }

  /// The median of the last fifth less the median of the second one; the first is warm-up.
  [[nodiscard]] double grown() const {
    const auto fifth = static_cast<std::ptrdiff_t>(series_.samples.size() / 5);
    const auto begin = series_.samples.begin();
    return bench::quartiles({series_.samples.end() - fifth, series_.samples.end()}).median -
           bench::quartiles({begin + fifth, begin + 2 * fifth}).median;
  }
  [[nodiscard]] Goal goal(double limit) const {
    return {Series{series_.id + "_growth", series_.label + ", growth", series_.unit, {grown()}},
            Goal::Kind::at_most, limit};
  }

 private:
  Series series_;
};

class Soak {
 public:
  Soak(const Options& options, const std::string& directory) : options_(options), work_(directory) {
    ckptring::set_log_level(ckptring::LogLevel::error);
  }

  bench::Report run() {
    ckptring::CheckpointerConfig config;
    config.max_saves_in_flight = 2;
    config.process_config.executable = CKPTRING_DRAIN_PATH;
    config.process_config.block_bytes = 64 << 10;
    config.process_config.ring_bytes = 2 << 20;
    ckptring::save::AsyncSave async(config, {});
    async.ready();
    async.wait_prefaulted();
    const bench::NoiseState state(700'000);
    const int every = std::max(1, options_.saves / kSamples);
    for (int i = 0; i < options_.saves; ++i) {
      const ckptring::SaveHandle save =
          async.submit(state.job(work_.path() + "/step_" + std::to_string(i % 8)));
      if (options_.kill_every > 0 && i % options_.kill_every == options_.kill_every - 1) {
        if (::kill(async.process_id(), SIGKILL) == 0) ++kills_;
      }
      if (i % every != every - 1) continue;
      (void)save.written.get();
      sample(async);
      if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\033[K{} saves", i + 1);
    }
    async.close();
    leftovers_ = static_cast<double>(Counts(::getpid()).children);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(work_.path())) {
      if (entry.path().filename().string().front() == '.') ++leftovers_;
    }
    return make_report();
  }

 private:
  /// While nothing is saved.
  void sample(ckptring::save::AsyncSave& async) {
    const auto [trainer, helper] = settled(async);
    trainer_memory_.add(trainer.memory);
    trainer_descriptors_.add(trainer.descriptors);
    trainer_threads_.add(trainer.threads);
    trainer_children_.add(trainer.children);
    helper_memory_.add(helper.memory);
    helper_descriptors_.add(helper.descriptors);
    helper_threads_.add(helper.threads);
  }

  /// Trainer and checkpoint process, once they have put away the last save. Where that was written
  /// before the kill, the checkpoint process is only now being replaced.
  static std::pair<Counts, Counts> settled(ckptring::save::AsyncSave& async) {
    const auto deadline = std::chrono::steady_clock::now() + kSettled;
    for (int before = 0;;) {
      std::this_thread::sleep_for(kPause);
      async.ready();
      const int helper = async.process_id();
      try {
        // A process that has just been started, or just been killed, is looked at a second time.
        if (helper > 0 && helper == std::exchange(before, helper)) {
          std::pair<Counts, Counts> seen{Counts(::getpid()), Counts(helper)};
          if (async.process_id() == helper) return seen;
        }
      } catch (const std::exception&) {
        if (std::chrono::steady_clock::now() > deadline) throw;  // it was not just killed
      }
    }
  }

  bench::Report make_report() const {
    bench::Report report("soak",
                         {{"saves", options_.saves}, {"kills_of_the_checkpoint_process", kills_}});
    report.heading(
        fmt::format("While {} saves were made and the checkpoint process was killed {} "
                    "times",
                    options_.saves, kills_));
    for (const Growth* one : all()) report.add(one->series());
    report.add(trainer_memory_.goal(1));
    report.add(helper_memory_.goal(0.25));
    for (const Growth* one : {&trainer_descriptors_, &trainer_threads_, &trainer_children_,
                              &helper_descriptors_, &helper_threads_}) {
      report.add(one->goal(0));
    }
    report.add(Goal{Series{"left", "processes and hidden files left at the end", "", {leftovers_}},
                    Goal::Kind::at_most, 0});
    return report;
  }

  [[nodiscard]] std::vector<const Growth*> all() const {
    return {&trainer_memory_, &trainer_descriptors_, &trainer_threads_, &trainer_children_,
            &helper_memory_,  &helper_descriptors_,  &helper_threads_};
  }

  Options options_;
  bench::WorkDirectory work_;
  Growth trainer_memory_{"trainer_memory", "trainer's memory", "MiB"};
  Growth trainer_descriptors_{"trainer_descriptors", "trainer's descriptors", ""};
  Growth trainer_threads_{"trainer_threads", "trainer's threads", ""};
  Growth trainer_children_{"trainer_children", "trainer's child processes", ""};
  Growth helper_memory_{"helper_memory", "checkpoint process's memory", "MiB"};
  Growth helper_descriptors_{"helper_descriptors", "checkpoint process's descriptors", ""};
  Growth helper_threads_{"helper_threads", "checkpoint process's threads", ""};
  double leftovers_ = 0;
  int kills_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  return bench::run_command(
      argc, argv,
      {.name = "bench_soak",
       .description = "What many saves leave behind; exit code 2 if anything grew",
       .add_options =
           [&](CLI::App& app) {
             app.add_option("--saves", options.saves, "how many")
                 ->check(CLI::Range(100, 100'000'000))
                 ->capture_default_str();
             app.add_option("--kill-every", options.kill_every,
                            "saves, the checkpoint process; 0: never")
                 ->check(CLI::Range(0, 1'000'000))
                 ->capture_default_str();
           },
       .measure = [&](const std::string& directory,
                      bench::NumbersFile&) { return Soak(options, directory).run(); },
       .goals_must_be_reached = true});
}
