// What a save costs: until the state may change, until it is durable, in memory and processor time
#include "save/checkpointers.h"
#include "save/goals.h"
#include "save/growth.h"
#include "save/limits.h"
#include "save/savers.h"
#include "save/state_shape.h"
#include "support/command.h"
#include "support/fio.h"
#include "support/machine.h"
#include "support/numbers_file.h"
#include "support/options.h"
#include "support/peer_ways.h"
#include "support/progress.h"
#include "support/report.h"
#include "support/rounds.h"
#include "support/work_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using bench::Shape;

struct Options {
  std::string shape = "gpt2";
  int pairs = 15;
  int saves = 2;
  double scale = 1;
  unsigned threads = 0;
  std::vector<double> rings{1, 0.5, 0.1};
  bench::PeerOptions peers{.python = BENCH_PYTHON};
  std::vector<double> growth;
  bool with_fio = true;
};

std::vector<Shape> shapes_of(const Options& options) {
  std::vector<Shape> shapes;
  for (const Shape shape : {Shape::gpt2, Shape::small, Shape::large}) {
    if (options.shape == "all" || options.shape == bench::name_of(shape)) shapes.push_back(shape);
  }
  return shapes;
}

class SaveBenchmark {
 public:
  SaveBenchmark(Options options, const std::string& directory, bench::NumbersFile& numbers)
      : options_(std::move(options)),
        peers_(bench::chosen_peers(bench::peer_ways(), options_.peers.names)),
        work_(directory),
        numbers_(numbers) {
    config_.staging_config.copy_threads =
        options_.threads != 0 ? options_.threads
                              : std::clamp(std::thread::hardware_concurrency() / 2, 1u, 8u);
  }

  bench::Report run() {
    bench::Report report("save", {{"pairs", options_.pairs},
                                  {"saves", options_.saves},
                                  {"scale", options_.scale},
                                  {"copy_threads", config_.staging_config.copy_threads},
                                  {"block_bytes", config_.process_config.block_bytes},
                                  {"queue_depth", config_.writer_config.queue_depth},
                                  {"growth_gigabytes", options_.growth},
                                  {"file_system", bench::file_system_of(work_.path())}});
    for (const Shape shape : shapes_of(options_)) measure_shape(report, shape);
    if (!options_.growth.empty()) {
      bench::Growth growth(work_, states_, config_, options_.saves, options_.growth);
      measure(report, growth, [&](bench::Report& to) { growth.add_to(to); });
    }
    add_notes(report);
    return report;
  }

 private:
  /// All rounds of a part. `add`: what came out of them.
  template <class Part>
  void measure(bench::Report& report, Part& part, const std::function<void(bench::Report&)>& add) {
    part.run(options_.pairs, numbers_.after_round(report, [&](bench::Report& to) {
      add(to);
      add_notes(to);
    }));
    add(report);
  }

  void add_notes(bench::Report& report) const {
    if (options_.scale != 1) report.note("scaled: the goals are meant for the whole state");
    if (!options_.with_fio || !bench::have_fio()) report.note("without fio");
  }

  void measure_shape(bench::Report& report, Shape shape) {
    const bench::StateSpec spec{shape, options_.scale};
    const std::string name = bench::name_of(shape);
    bench::progress(fmt::format("{}: making the state", name));
    const bench::SavedState& state = states_.get(spec);
    const std::size_t tensors = state.payloads.size();
    const std::uint64_t bytes = state.bytes;
    const nlohmann::json description = bench::describe(state.dict);
    const bench::Setting setting{work_,   states_,       spec, bench::file_bytes_of(work_, state),
                                 config_, options_.saves};
    bench::SaveRounds rounds(name, static_cast<double>(bytes) * 1e-9, bench::metrics(),
                             contestants(setting, description));
    measure(report, rounds, [&](bench::Report& to) {
      rounds.add_to(to, bench::comparisons());
      add_phases(to, rounds);
      rounds.add_notes_to(to);
      bench::add_goals(to, rounds, shape, tensors);
      to.parameter("shapes", {{"name", name},
                              {"tensors", tensors},
                              {"state_bytes", bytes},
                              {"file_bytes", setting.file_bytes}});
    });
    states_.release();
  }

  static void add_phases(bench::Report& report, const bench::SaveRounds& rounds) {
    const bench::ContestantSeries<bench::RunFigures>* const async = rounds.find("async");
    if (async == nullptr) return;
    report.heading(rounds.name() + ": Where the time of an async save goes");
    for (const bench::SaveMetric& phase : bench::phases()) {
      bench::Series series = async->of(phase.id);
      series.label = phase.label;
      report.add(std::move(series));
    }
  }

  bench::SaveRounds::Contestants contestants(const bench::Setting& setting,
                                             const nlohmann::json& description) const {
    bench::SaveRounds::Contestants all;
    const auto async = [&](std::string id, std::string label, const bench::AsyncKind& kind) {
      all.push_back(std::make_unique<bench::AsyncSaves>(setting, std::move(id),
                                                        "ckptring " + std::move(label), kind));
    };
    for (const double share : options_.rings) {
      if (share >= 1) {
        async("async", "async", {});
      } else {
        async(fmt::format("async_ring_{:g}", 100 * share),
              fmt::format("async, ring {:g} of the state", share), {.ring_share = share});
      }
    }
    async("async_foreground", "async, staged when save returns", {.async_staging = false});
    async("async_unprepared", "async, not prepared", {.prepared = false});
    async("async_uncaptured", "async, nothing captured", {.captures = false});
    async("async_unsampled", "async, nothing sampled", {.samples = false});
    if (setting.spec.shape == Shape::small) {
      async("async_as_large", "async, the same bytes in 4 tensors",
            {.of = bench::large_as_small(setting.spec.scale)});
    }
    all.push_back(std::make_unique<bench::SyncSaves>(setting));
    all.push_back(std::make_unique<bench::PlainCopy>(setting));
    all.push_back(std::make_unique<bench::BareWriter>(setting));
    if (options_.with_fio && bench::have_fio()) {
      all.push_back(std::make_unique<bench::Fio>(setting));
    }
    for (const bench::PeerWay& way : peers_) {
      all.push_back(
          std::make_unique<bench::Saver>(setting, way, options_.peers.python, description));
    }
    return all;
  }

  const Options options_;
  const std::vector<bench::PeerWay> peers_;
  const bench::WorkDirectory work_;
  bench::NumbersFile& numbers_;
  bench::CurrentState states_;
  ckptring::CheckpointerConfig config_;
};

void add_options(CLI::App& app, Options& options) {
  bench::add_option(app, "--shape", options.shape,
                    CLI::IsMember({"gpt2", "small", "large", "all", "none"}),
                    "gpt2, small, large, all or none");
  bench::add_times_option(app, "--pairs", options.pairs, "rounds in which everybody has one turn");
  bench::add_option(app, "--saves", options.saves, CLI::Range(1, 100),
                    "of each turn, after its first; their median counts");
  bench::add_scale_option(app, options.scale, "the shape's");
  app.add_option("--ring", options.rings, "sizes of the ring, as shares of the state")
      ->delimiter(',')
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str();
  bench::add_peers_option(app, options.peers,
                          "to compare with: names in benchmarks/peers, all, none");
  app.add_option("--growth", options.growth, "also measures growth over these sizes in GB")
      ->delimiter(',')
      ->check(CLI::Range(0.001, 1000.0));
  bench::add_threads_option(app, "--threads", options.threads,
                            "that copy (default: half of the cores, at most 8)");
  bench::add_python_option(app, options.peers, "torch and safetensors");
  bench::add_fio_option(app, options.with_fio);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_benchmark<SaveBenchmark>(
      argc, argv, "bench_save",
      "What a save costs, beside a memcpy, a bare writer and PyTorch's ways to save", add_options);
}
