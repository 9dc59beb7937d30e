// How much training time a checkpoint costs, beside PyTorch's ways to save
#include "support/command.h"
#include "support/machine.h"
#include "support/numbers_file.h"
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
  std::vector<std::string> peers{"all"};
  std::string python = BENCH_PYTHON;
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
  for (const bench::PeerWay& way : bench::chosen_peers(bench::peer_ways(), options.peers)) {
    programs.push_back({way.id, way.label, {options.python, BENCH_PEERS "/trainer.py", way.id}});
  }
  return programs;
}

bench::Report measure(Options options, const std::string& directory, bench::NumbersFile& numbers) {
  if (options.steps % options.save_every != 0) {
    throw std::runtime_error("--steps must be a multiple of --save-every");
  }
  if (options.threads == 0) options.threads = std::min(cores(), 8u);
  if (options.copy_threads == 0) options.copy_threads = std::clamp(cores() / 2, 1u, 8u);
  const bench::WorkDirectory work(directory);
  bench::Report report("train", {{"rounds", options.rounds},
                                 {"steps", options.steps},
                                 {"save_every", options.save_every},
                                 {"threads", options.threads},
                                 {"copy_threads", options.copy_threads},
                                 {"omp_wait_policy", std::getenv("OMP_WAIT_POLICY")},
                                 {"file_system", bench::file_system_of(work.path())}});
  bench::Pairs pairs(model_of(options),
                     {options.rounds, options.steps, options.save_every, options.copy_threads},
                     programs_of(options));
  const auto add_pairs = [&](bench::Report& to) {
    pairs.add_to(to);
    bench::add_goals(to, pairs);
  };
  pairs.run(work, numbers.after_round(report, add_pairs));
  add_pairs(report);
  return report;
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--model", options.model, "demo (10.8 M parameters) or gpt2 (162 M, long)")
      ->check(CLI::IsMember({"demo", "gpt2"}))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "in each of which everybody trains, with and without")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--steps", options.steps, "of a round with checkpoints, and as many without")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--save-every", options.save_every, "steps from save to save")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "that compute (default: all cores, up to 8)")
      ->check(CLI::Range(1, 256));
  app.add_option("--copy-threads", options.copy_threads,
                 "of ckptring (default: half of the cores, at most 8)")
      ->check(CLI::Range(1, 256));
  app.add_option("--peers", options.peers, "to compare with: names in benchmarks/peers, all, none")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--python", options.python, "with torch and safetensors, for the peers")
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  bench::watch_interrupts();
  Options options;
  return bench::run_command(
      argc, argv,
      {.name = "bench_train",
       .description = "How much training time a checkpoint costs, beside PyTorch's ways to save",
       .add_options = [&](CLI::App& app) { add_options(app, options); },
       .measure =
           [&](const std::string& directory, bench::NumbersFile& numbers) {
             // Compute threads that wait should sleep: awake they would take the cores that copying
             // and writing need. OpenMP reads this when a trainer starts.
             if (::setenv("OMP_WAIT_POLICY", "passive", 0) != 0) {
               throw std::system_error(errno, std::generic_category(), "set OMP_WAIT_POLICY");
             }
             return measure(options, directory, numbers);
           },
       .goals_must_be_reached = false});
}
