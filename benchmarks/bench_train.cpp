// How much training time a checkpoint costs, beside PyTorch's ways to save
#include "support/command.h"
#include "support/machine.h"
#include "support/numbers_file.h"
#include "support/options.h"
#include "support/peer_ways.h"
#include "support/progress.h"
#include "support/report.h"
#include "support/work_directory.h"
#include "train/goals.h"
#include "train/pairs.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Options {
  std::string model = "demo";
  int rounds = 5;
  int steps = 20;
  int save_every = 5;
  unsigned threads = 0;
  unsigned copy_threads = 0;
  bench::PeerOptions peers{.python = BENCH_PYTHON};
};

unsigned cores() { return std::max(std::thread::hardware_concurrency(), 1u); }

bench::TrainerModel model_of(const Options& options) {
  nlohmann::json shape =
      options.model == "demo"
          ? nlohmann::json{{"vocabulary", 96}, {"context", 128}, {"layers", 6},
                           {"heads", 6},       {"width", 384},   {"batch", 4}}
          : nlohmann::json{{"vocabulary", 50257}, {"context", 128}, {"layers", 12},
                           {"heads", 12},         {"width", 768},   {"batch", 2}};
  shape["seed"] = 1;
  shape["threads"] = options.threads;
  return {options.model, std::move(shape)};
}

std::vector<bench::TrainerProgram> programs_of(const Options& options) {
  const auto ours = [&](std::string id, std::string label) -> bench::TrainerProgram {
    return {id,
            "ckptring " + std::move(label),
            {BENCH_TRAINER, id, "--copy-threads", std::to_string(options.copy_threads)},
            true};
  };
  std::vector<bench::TrainerProgram> programs{ours("async", "async"), ours("sync", "sync")};
  for (const bench::PeerWay& way : bench::chosen_peers(bench::peer_ways(), options.peers.names)) {
    programs.push_back(
        {way.id, way.label, {options.peers.python, BENCH_PEERS "/trainer.py", way.id}});
  }
  return programs;
}

class TrainBenchmark {
 public:
  TrainBenchmark(Options options, const std::string& directory, bench::NumbersFile& numbers)
      : options_(std::move(options)), work_(directory), numbers_(numbers) {
    if (options_.steps % options_.save_every != 0) {
      throw std::runtime_error("--steps must be a multiple of --save-every");
    }
    if (options_.threads == 0) options_.threads = std::min(cores(), 8u);
    if (options_.copy_threads == 0) options_.copy_threads = std::clamp(cores() / 2, 1u, 8u);
    // Compute threads that wait should sleep: awake they would take the cores that copying and
    // writing need. OpenMP reads this when a trainer starts.
    if (::setenv("OMP_WAIT_POLICY", "passive", 0) != 0) {
      throw std::system_error(errno, std::generic_category(), "set OMP_WAIT_POLICY");
    }
  }

  bench::Report run() {
    bench::Report report("train", {{"rounds", options_.rounds},
                                   {"steps", options_.steps},
                                   {"save_every", options_.save_every},
                                   {"threads", options_.threads},
                                   {"copy_threads", options_.copy_threads},
                                   {"omp_wait_policy", std::getenv("OMP_WAIT_POLICY")},
                                   {"file_system", bench::file_system_of(work_.path())}});
    bench::Pairs pairs(
        model_of(options_),
        {options_.rounds, options_.steps, options_.save_every, options_.copy_threads},
        programs_of(options_));
    const auto add_pairs = [&](bench::Report& to) {
      pairs.add_to(to);
      bench::add_goals(to, pairs);
    };
    pairs.run(work_, numbers_.after_round(report, add_pairs));
    add_pairs(report);
    return report;
  }

 private:
  Options options_;
  const bench::WorkDirectory work_;
  bench::NumbersFile& numbers_;
};

void add_options(CLI::App& app, Options& options) {
  bench::add_option(app, "--model", options.model, CLI::IsMember({"demo", "gpt2"}),
                    "demo (10.8 M parameters) or gpt2 (162 M, long)");
  bench::add_times_option(app, "--rounds", options.rounds,
                          "in each of which everybody trains, with and without");
  bench::add_option(app, "--steps", options.steps, CLI::Range(1, 100'000),
                    "of a round with checkpoints, and as many without");
  bench::add_option(app, "--save-every", options.save_every, CLI::Range(1, 100'000),
                    "steps from save to save");
  bench::add_threads_option(app, "--threads", options.threads,
                            "that compute (default: all cores, up to 8)");
  bench::add_threads_option(app, "--copy-threads", options.copy_threads,
                            "of ckptring (default: half of the cores, at most 8)");
  bench::add_peers_option(app, options.peers,
                          "to compare with: names in benchmarks/peers, all, none");
  bench::add_python_option(app, options.peers, "torch and safetensors");
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_benchmark<TrainBenchmark>(
      argc, argv, "bench_train",
      "How much training time a checkpoint costs, beside PyTorch's ways to save", add_options);
}
