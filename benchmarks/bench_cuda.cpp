// What a save from a CUDA device costs, beside plain copies into pinned memory and DCP's async_save
#include "cuda/pinned_copies.h"
#include "cuda/staged_saves.h"
#include "cuda/training.h"
#include "gpu/devices.h"
#include "save/state_shape.h"
#include "support/command.h"
#include "support/machine.h"
#include "support/moved_state.h"
#include "support/numbers_file.h"
#include "support/options.h"
#include "support/peer.h"
#include "support/peer_ways.h"
#include "support/progress.h"
#include "support/report.h"
#include "support/work_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using bench::Goal;
using bench::Series;

constexpr double kMebibyte = 1 << 20;
constexpr double kAnswerSecs = 600;
constexpr int kMostSteps = 300;  // while a save is under way

struct Options {
  int rounds = 9;
  double scale = 1;
  int device = 0;
  int steps = 20;
  bench::TrainingSize training;
  bench::PeerOptions peers{.python = BENCH_PYTHON};
};

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The ways to use DCP's async_save that peers/cuda_saver.py knows.
constexpr bench::PeerWay kPeers[] = {{"dcp_pinned_thread", "DCP async_save, thread, pinned"},
                                     {"dcp_pinned_process", "DCP async_save, process, pinned"}};

/// A peer's figures over the rounds.
struct PeerSeries {
  explicit PeerSeries(const bench::PeerWay& of) : way(of) {}

  [[nodiscard]] Series make(const char* id, const char* label, const char* unit) const {
    return {std::string(way.id) + "." + id, std::string(way.label) + ": " + label, unit, {}};
  }

  bench::PeerWay way;
  Series returned = make("returned", "until it returns", "ms");
  Series staged = make("staged", "until the state may change again", "GB/s");
  Series durable = make("durable", "from call to durable", "GB/s");
  Series step = make("step", "step without a save", "ms");
  Series step_saving = make("step_saving", "step during a save, mean", "ms");
  Series step_ratio = make("step_ratio", "the same to a step without", "");
  std::optional<std::string> failure;
};

class CudaBenchmark {
 public:
  CudaBenchmark(Options options, const std::string& directory, bench::NumbersFile& numbers)
      : options_(std::move(options)), work_(directory), numbers_(numbers) {
    for (const bench::PeerWay& way : bench::chosen_peers(kPeers, options_.peers.names)) {
      peers_.emplace_back(way);
    }
  }

  bench::Report run() {
    bench::Report report("cuda", {{"rounds", options_.rounds},
                                  {"scale", options_.scale},
                                  {"device", options_.device},
                                  {"training_layers", options_.training.layers},
                                  {"training_width", options_.training.width},
                                  {"file_system", bench::file_system_of(work_.path())}});
    if (devices_.count() == 0) {
      report.skip(devices_.why_none());
      return report;
    }
    if (options_.device >= devices_.count()) {
      throw std::runtime_error(fmt::format("there is no device {}", options_.device));
    }
    // Not after each round: what that takes of this process's memory would count as the saves'.
    const bench::AfterRound after_part =
        numbers_.after_round(report, [&](bench::Report& to) { add_to(to); });
    measure_saves(report);
    after_part("saves");
    measure_training();
    after_part("saves and training");
    measure_peers(after_part);
    add_to(report);
    return report;
  }

 private:
  /// In alternation: the limit, and a save.
  void measure_saves(bench::Report& report) {
    bench::CurrentState states;
    const bench::SavedState& on_host = states.get({bench::Shape::gpt2, options_.scale});
    description_ = bench::describe(on_host.dict);
    const ckptring::StateDict state = ckptring::test::to_device(on_host.dict, options_.device);
    const std::uint64_t bytes = on_host.bytes;
    gigabytes_ = static_cast<double>(bytes) * 1e-9;
    report.parameter(
        "states", {{"name", "gpt2"}, {"tensors", on_host.payloads.size()}, {"state_bytes", bytes}});
    states.release();

    const bench::PinnedCopies copies(devices_, state, options_.device);
    bench::StagedSaves saves(devices_, work_, state, bytes, options_.device);
    first_staged_.add(saves.save().staged * 1e3);
    (void)saves.save();  // by now the driver knows the whole ring
    (void)copies.whole();
    (void)copies.each();
    for (int round = 0; round < options_.rounds; ++round) {
      bench::progress(fmt::format("saves, round {}/{}", round + 1, options_.rounds));
      limit_.add(gigabytes_ / copies.whole());
      each_.add(gigabytes_ / copies.each());
      const bench::DeviceSaveTimes times = saves.save();
      returned_.add(times.returned * 1e3);
      fenced_.add(times.fenced * 1e3);
      held_.add((times.returned + times.fenced) * 1e3);
      stream_held_.add(times.stream_held * 1e3);
      staged_.add(gigabytes_ / times.staged);
      durable_.add(gigabytes_ / times.durable);
      const bench::DeviceSaveMemory memory = saves.memory();
      device_memory_.add(memory.on_device / kMebibyte);
      host_memory_.add(memory.beyond_ring / kMebibyte);
    }
  }

  void measure_training() {
    bench::DeviceTraining training(devices_, options_.device, options_.training);
    ckptring::CheckpointerConfig config;
    const std::uint64_t block = config.process_config.block_bytes;
    config.process_config.ring_bytes = (training.state_bytes() / block + 4) * block;
    const auto checkpointer = ckptring::make_async_checkpointer(config);
    checkpointer->prepare(training.state());
    checkpointer->ready();
    checkpointer->wait_prefaulted();
    (void)training.run_during_save(*checkpointer, work_.path() + "/training", kMostSteps);
    for (int round = 0; round < options_.rounds; ++round) {
      bench::progress(fmt::format("training, round {}/{}", round + 1, options_.rounds));
      work_.clear();
      const double without = mean(training.run(options_.steps));
      const auto during =
          training.run_during_save(*checkpointer, work_.path() + "/training", kMostSteps);
      step_.add(without * 1e3);
      step_saving_.add(mean(during) * 1e3);
      step_first_.add(during.front() * 1e3);
      step_ratio_.add(mean(during) / without);
      steps_.add(static_cast<double>(during.size()));
      measure_first_save(training);
    }
    checkpointer->close();
  }

  /// Of a checkpointer that nobody has prepared: its ring is made, populated and registered while
  /// the training goes on.
  void measure_first_save(bench::DeviceTraining& training) {
    work_.clear();
    const auto checkpointer = ckptring::make_async_checkpointer();
    const auto during =
        training.run_during_save(*checkpointer, work_.path() + "/first", kMostSteps);
    step_unprepared_.add(mean(during) * 1e3);
    step_unprepared_longest_.add(*std::ranges::max_element(during) * 1e3);
    checkpointer->close();
  }

  void measure_peers(const bench::AfterRound& after_part) {
    for (PeerSeries& peer : peers_) {
      bench::progress(peer.way.label);
      try {
        measure(peer);
      } catch (const bench::PeerError& error) {
        peer.failure = error.what();
      }
      work_.clear();
      after_part(fmt::format("all up to {}", peer.way.label));
    }
  }

  void measure(PeerSeries& series) {
    bench::Peer peer({options_.peers.python, BENCH_PEERS "/cuda_saver.py", series.way.id,
                      fmt::format("cuda:{}", options_.device)});
    const auto ask = [&](const nlohmann::json& command) {
      return peer.ask(command, kAnswerSecs, bench::check_interrupts);
    };
    const nlohmann::json save = {{"save", work_.path() + "/peer"}};
    (void)ask({{"state", description_}});
    (void)ask({{"prepare", true}});
    for (int round = -1; round < options_.rounds; ++round) {  // one to warm up
      work_.clear();
      const nlohmann::json times = ask(save);
      if (round < 0) continue;
      series.returned.add(times.at("returned").get<double>() * 1e3);
      series.staged.add(gigabytes_ / times.at("staged").get<double>());
      series.durable.add(gigabytes_ / times.at("durable").get<double>());
    }
    (void)ask(
        {{"training", {{"layers", options_.training.layers}, {"width", options_.training.width}}}});
    for (int round = -1; round < options_.rounds; ++round) {
      work_.clear();
      const auto without =
          ask({{"steps", options_.steps}}).at("seconds").get<std::vector<double>>();
      const auto during = ask({{"steps", kMostSteps}, {"during", work_.path() + "/peer"}})
                              .at("seconds")
                              .get<std::vector<double>>();
      if (round < 0) continue;
      series.step.add(mean(without) * 1e3);
      series.step_saving.add(mean(during) * 1e3);
      series.step_ratio.add(mean(during) / mean(without));
    }
  }

  void add_to(bench::Report& report) const {
    report.heading("Staging");
    for (const Series* one : {&limit_, &each_, &staged_}) report.add(*one);
    for (const PeerSeries& peer : peers_) report.add(peer.staged);
    report.add(durable_);
    for (const PeerSeries& peer : peers_) report.add(peer.durable);
    report.heading("What is held");
    for (const Series* one : {&returned_, &fenced_, &stream_held_, &first_staged_}) {
      report.add(*one);
    }
    for (const PeerSeries& peer : peers_) report.add(peer.returned);
    report.heading("Training");
    for (const Series* one : {&step_, &step_saving_, &step_first_, &steps_, &step_unprepared_,
                              &step_unprepared_longest_}) {
      report.add(*one);
    }
    for (const PeerSeries& peer : peers_) {
      for (const Series* one : {&peer.step, &peer.step_saving, &peer.step_ratio}) report.add(*one);
    }
    report.heading("Memory");
    report.add(host_memory_);
    report.add(device_memory_);

    Series to_limit{"staged_to_limit", "staging, to one copy into pinned memory", "", {}};
    to_limit.samples = bench::ratios(staged_, limit_);
    report.add(Goal{std::move(to_limit), Goal::Kind::at_least, 0.95});
    report.add(Goal{held_, Goal::Kind::at_most, 1});
    report.add(Goal{step_ratio_, Goal::Kind::at_most, 1.05});
    Series host = host_memory_;
    host.id += "_goal";
    report.add(Goal{std::move(host), Goal::Kind::at_most, 16});
    Series device = device_memory_;
    device.id += "_goal";
    report.add(Goal{std::move(device), Goal::Kind::at_most, 64});

    for (const PeerSeries& peer : peers_) {
      if (peer.failure) report.note(fmt::format("{} failed: {}", peer.way.label, *peer.failure));
    }
    if (options_.scale != 1) report.note("scaled: the goals are meant for the whole state");
  }

  const Options options_;
  const ckptring::test::Devices devices_;
  const bench::WorkDirectory work_;
  bench::NumbersFile& numbers_;
  nlohmann::json description_;
  double gigabytes_ = 0;

  Series limit_{"limit", "one copy of all bytes into pinned memory", "GB/s", {}};
  Series each_{"each", "one copy for each tensor into pinned memory", "GB/s", {}};
  Series staged_{"staged", "ckptring: until the state may change again", "GB/s", {}};
  Series durable_{"durable", "ckptring: from save to durable", "GB/s", {}};
  Series returned_{"returned", "ckptring: until save returns", "ms", {}};
  Series fenced_{"fenced", "ckptring: fence holds the caller", "ms", {}};
  Series held_{"held", "save and fence together hold the caller", "ms", {}};
  Series stream_held_{"stream_held", "ckptring: the fence holds an idle stream", "ms", {}};
  Series first_staged_{"first_staged", "ckptring: a first save, until staged", "ms", {}};
  Series step_{"step", "ckptring: step without a save", "ms", {}};
  Series step_saving_{"step_saving", "ckptring: step during a save, mean", "ms", {}};
  Series step_first_{"step_first", "ckptring: the step in which it is begun", "ms", {}};
  Series step_ratio_{"step_ratio", "step during a save, to one without", "", {}};
  Series steps_{"steps", "ckptring: steps until it was durable", "", {}};
  Series step_unprepared_{
      "step_unprepared", "ckptring: step during an unprepared first save, mean", "ms", {}};
  Series step_unprepared_longest_{
      "step_unprepared_longest", "ckptring: the longest of these", "ms", {}};
  Series host_memory_{"host_memory", "host memory beyond the ring", "MiB", {}};
  Series device_memory_{"device_memory", "device memory", "MiB", {}};
  std::vector<PeerSeries> peers_;
};

void add_options(CLI::App& app, Options& options) {
  bench::add_times_option(app, "--rounds", options.rounds, "in which everything is measured once");
  bench::add_scale_option(app, options.scale, "the state's");
  bench::add_option(app, "--device", options.device, CLI::Range(0, 127),
                    "number of the CUDA device");
  bench::add_option(app, "--steps", options.steps, CLI::Range(1, 10'000),
                    "of training without a save, in each round");
  bench::add_option(app, "--layers", options.training.layers, CLI::Range(1, 1000),
                    "of the training");
  bench::add_option(app, "--width", options.training.width, CLI::Range(1, 65536), "of its layers");
  bench::add_peers_option(app, options.peers, "dcp_pinned_thread, dcp_pinned_process, all or none");
  bench::add_python_option(app, options.peers, "torch");
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_benchmark<CudaBenchmark>(
      argc, argv, "bench_cuda", "What a save from a CUDA device costs; skipped where there is none",
      add_options);
}
