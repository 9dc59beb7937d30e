// What a load costs: a new state, in place, in part, from the disk and from the page cache
#include "load/goals.h"
#include "load/limits.h"
#include "load/loaders.h"
#include "load/run_figures.h"
#include "save/state_shape.h"
#include "support/command.h"
#include "support/fio.h"
#include "support/machine.h"
#include "support/numbers_file.h"
#include "support/options.h"
#include "support/peer.h"
#include "support/peer_ways.h"
#include "support/progress.h"
#include "support/report.h"
#include "support/rounds.h"
#include "support/work_directory.h"

#include <ckptring/checkpointer.h>

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Options {
  int pairs = 15;
  double scale = 1;
  unsigned threads = 0;
  bench::PeerOptions peers{.python = BENCH_PYTHON};
  bool with_fio = true;
};

class LoadBenchmark {
 public:
  LoadBenchmark(Options options, const std::string& directory, bench::NumbersFile& numbers)
      : options_(std::move(options)),
        peers_(bench::chosen_peers(bench::peer_loaders(), options_.peers.names)),
        work_(directory),
        numbers_(numbers) {
    limits_.directory = work_.path();
    limits_.threads = options_.threads != 0
                          ? options_.threads
                          : std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
  }

  bench::Report run() {
    bench::Report report("load", {{"pairs", options_.pairs},
                                  {"scale", options_.scale},
                                  {"threads", limits_.threads},
                                  {"file_system", bench::file_system_of(work_.path())}});
    bench::progress("saving what is loaded");
    save();
    bench::LoadRounds::Contestants all = contestants(report);
    bench::LoadRounds rounds("load", static_cast<double>(limits_.state_bytes) * 1e-9,
                             bench::load_metrics(), std::move(all));
    const auto add_rounds = [&](bench::Report& to) { add(to, rounds); };
    rounds.run(options_.pairs, numbers_.after_round(report, add_rounds));
    add_rounds(report);
    return report;
  }

 private:
  void add(bench::Report& report, const bench::LoadRounds& rounds) const {
    rounds.add_to(report, bench::load_metrics());
    rounds.add_notes_to(report);
    bench::add_load_goals(report, rounds);
    if (options_.scale != 1) report.note("scaled: the goals are meant for the whole state");
    if (!options_.with_fio || !bench::have_fio()) report.note("without fio");
  }

  /// The file that this library loads, and all others are made from.
  void save() {
    bench::CurrentState states;
    const bench::SavedState& state = states.get({bench::Shape::gpt2, options_.scale});
    limits_.state_bytes = state.bytes;
    const auto checkpointer = ckptring::make_sync_checkpointer();
    const ckptring::SaveReport saved =
        checkpointer->save(work_.path() + "/ckptring", state.dict).written.get();
    limits_.path = saved.path;
    limits_.file_bytes = saved.bytes;
    checkpointer->close();
  }

  [[nodiscard]] bench::LoaderSpec ours(std::string id, std::string label,
                                       std::vector<std::string> options) const {
    std::vector<std::string> arguments{BENCH_LOADER, "--threads", std::to_string(limits_.threads)};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return {std::move(id), std::move(label), std::move(arguments), limits_.path, limits_.path};
  }

  bench::LoadRounds::Contestants contestants(bench::Report& report) const {
    bench::LoadRounds::Contestants all;
    const bench::LoaderSpec checked = ours("ckptring", "ckptring", {});
    describe(report, checked);
    all.push_back(std::make_unique<bench::Loader>(checked));
    all.push_back(std::make_unique<bench::Loader>(
        ours("ckptring_unchecked", "ckptring, checksums off", {"--no-checksums"})));
    all.push_back(std::make_unique<bench::Memcpy>(limits_));
    all.push_back(std::make_unique<bench::WarmRead>(limits_));
    all.push_back(std::make_unique<bench::BareReader>(limits_));
    if (options_.with_fio && bench::have_fio()) {
      all.push_back(std::make_unique<bench::FioReader>(limits_));
    }
    for (const bench::PeerWay& peer : peers_) {
      const bench::LoaderSpec spec{peer.id,
                                   peer.label,
                                   {options_.peers.python, BENCH_PEERS "/loader.py", peer.id,
                                    std::to_string(limits_.threads)},
                                   limits_.path,
                                   work_.path() + "/" + peer.id};
      bench::progress(fmt::format("saving what {} loads", peer.label));
      try {
        bench::make_what_is_loaded(spec);
        all.push_back(std::make_unique<bench::Loader>(spec));
      } catch (const bench::ContestantFailed& error) {
        report.note(fmt::format("{} cannot save: {}", peer.label, error.what()));
      }
    }
    return all;
  }

  /// How much there is to load.
  static void describe(bench::Report& report, const bench::LoaderSpec& spec) {
    bench::Peer loader(spec.arguments);
    report.parameter("state",
                     loader.ask({{"state", spec.structure}}, 300, bench::check_interrupts));
  }

  const Options options_;
  const std::vector<bench::PeerWay> peers_;
  const bench::WorkDirectory work_;
  bench::NumbersFile& numbers_;
  bench::LimitSetting limits_;
};

void add_options(CLI::App& app, Options& options) {
  bench::add_times_option(app, "--pairs", options.pairs, "rounds in which everybody has one turn");
  bench::add_scale_option(app, options.scale, "GPT-2's");
  bench::add_threads_option(app, "--threads", options.threads,
                            "of everybody (default: the cores, at most 8)");
  bench::add_peers_option(app, options.peers,
                          "to compare with: names in peers/loader.py, all, none");
  bench::add_python_option(app, options.peers, "torch and safetensors");
  bench::add_fio_option(app, options.with_fio);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_benchmark<LoadBenchmark>(
      argc, argv, "bench_load",
      "What a load costs, beside a memcpy, the disk and PyTorch's ways to load", add_options);
}
