#include "train/trainer_process.h"

#include "support/progress.h"

#include <algorithm>
#include <numeric>

namespace bench {
namespace {

constexpr double kAnswerSecs = 1800;
constexpr int kWarmUpSteps = 3;

nlohmann::json train_command(int steps, const std::optional<std::string>& save) {
  return {{"steps", steps}, {"save", save ? nlohmann::json(*save) : nlohmann::json()}};
}

}  // namespace

TrainerProcess::TrainerProcess(const TrainerProgram& program, const TrainerModel& model)
    : peer_(program.command) {
  const nlohmann::json answer = ask({{"train", model.shape}, {"steps", kWarmUpSteps}});
  state_bytes_ = answer.at("bytes");
  parameters_ = answer.at("parameters");
}

void TrainerProcess::prepare(const std::string& directory) { (void)ask({{"prepare", directory}}); }

LoopFigures TrainerProcess::train(int steps, const std::optional<std::string>& save) {
  const FamilyCpu before = peer_.cpu();
  const nlohmann::json answer = ask(train_command(steps, save));
  const FamilyCpu after = peer_.cpu();
  LoopFigures figures{.steps = answer.at("steps"),
                      .trained = answer.at("trained"),
                      .trainer_cpu = after.leader - before.leader,
                      .helper_cpu = after.others - before.others};
  if (save) {
    figures.held = answer.at("held");
    figures.tail = answer.at("durable").get<double>() -
                   std::accumulate(figures.steps.begin(), figures.steps.end(), 0.0);
  }
  return figures;
}

double TrainerProcess::highest_memory(int steps, const std::optional<std::string>& save) {
  std::uint64_t highest = 0;
  (void)peer_.ask(train_command(steps, save), kAnswerSecs, [&] {
    check_interrupts();
    highest = std::max(highest, peer_.memory().pss);
  });
  return static_cast<double>(highest);
}

double TrainerProcess::copy(unsigned threads) { return ask({{"copy", threads}}).at("copied"); }

nlohmann::json TrainerProcess::ask(const nlohmann::json& command) {
  return peer_.ask(command, kAnswerSecs, check_interrupts);
}

}  // namespace bench
