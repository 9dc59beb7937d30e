#include "save/savers.h"

#include "save/figures.h"
#include "support/peer.h"
#include "support/progress.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace bench {
namespace {

constexpr double kAnswerSecs = 300;

std::optional<double> seconds(const nlohmann::json& answer, const char* name) {
  const nlohmann::json& value = answer.at(name);
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

/// One peer, from its start to its end.
class SaverRun {
 public:
  SaverRun(const WorkDirectory& work, const std::string& python, const std::string& way,
           const nlohmann::json& description)
      : work_(work), peer_({python, BENCH_PEERS "/saver.py", way}) {
    (void)ask({{"state", description}});
    before_ = peer_.memory();
    prepared_ = ask({{"prepare", true}}).at("prepared").get<double>();
  }

  [[nodiscard]] double prepared() const noexcept { return prepared_; }

  SaveFigures save() {
    work_.clear();
    const FamilyCpu cpu_before = peer_.cpu();
    const nlohmann::json answer = ask(command());
    const FamilyCpu cpu = peer_.cpu();
    SaveFigures figures;
    figures.returned = seconds(answer, "returned");
    figures.staged = seconds(answer, "staged");
    figures.written = seconds(answer, "written");
    figures.durable = seconds(answer, "durable");
    figures.trainer_cpu = cpu.leader - cpu_before.leader;
    figures.helper_cpu = cpu.others - cpu_before.others;
    return figures;
  }

  MemoryFigures look_at_memory() {
    work_.clear();
    ProcessMemory peak;
    (void)peer_.ask(command(), kAnswerSecs, [&] {
      check_interrupts();
      const ProcessMemory now = peer_.memory();
      peak.pss = std::max(peak.pss, now.pss);
      peak.page_tables = std::max(peak.page_tables, now.page_tables);
    });
    return growth_of(before_, peak);
  }

 private:
  nlohmann::json ask(const nlohmann::json& command) {
    return peer_.ask(command, kAnswerSecs, check_interrupts);
  }
  [[nodiscard]] nlohmann::json command() const { return {{"save", work_.path() + "/peer"}}; }

  const WorkDirectory& work_;
  Peer peer_;
  ProcessMemory before_;
  double prepared_ = 0;
};

}  // namespace

Saver::Saver(const Setting& setting, const PeerWay& way, std::string python,
             const nlohmann::json& description)
    : SaveContestant(way.id, way.label),
      setting_(setting),
      way_(way.id),
      python_(std::move(python)),
      description_(description) {}

RunFigures Saver::run(int round) {
  setting_.states.release();
  RunFigures run;
  try {
    SaverRun saves(setting_.work, python_, way_, description_);
    run.prepared = saves.prepared();
    run.first = saves.save();
    run.steady = median_of(setting_.saves, [&] { return saves.save(); });
    if (round == 0) run.memory = saves.look_at_memory();
  } catch (const PeerError& error) {
    setting_.work.clear();
    throw ContestantFailed(error.what());
  }
  setting_.work.clear();
  return run;
}

}  // namespace bench
