#include "train/trainer_process.h"

#include "support/progress.h"

#include <algorithm>

namespace bench {
namespace {

constexpr double kAnswerSecs = 1800;
constexpr int kWarmUpSteps = 3;

nlohmann::json train_command(int steps, int save_every, const std::string& directory) {
  return {{"steps", steps}, {"save_every", save_every}, {"directory", directory}};
}

}  // namespace

void LoopFigures::append(const LoopFigures& later) {
  steps.insert(steps.end(), later.steps.begin(), later.steps.end());
  held.insert(held.end(), later.held.begin(), later.held.end());
  trained += later.trained;
  tail = std::max(tail, later.tail);
  trainer_cpu += later.trainer_cpu;
  helper_cpu += later.helper_cpu;
}

TrainerProcess::TrainerProcess(const TrainerProgram& program, const TrainerModel& model)
    : peer_(program.command) {
  const nlohmann::json answer = ask({{"train", model.shape}, {"steps", kWarmUpSteps}});
  state_bytes_ = answer.at("bytes");
  parameters_ = answer.at("parameters");
}

void TrainerProcess::prepare(const std::string& directory) { (void)ask({{"prepare", directory}}); }

LoopFigures TrainerProcess::train(int steps, int save_every, const std::string& directory) {
  const FamilyCpu before = peer_.cpu();
  const nlohmann::json answer = ask(train_command(steps, save_every, directory));
  const FamilyCpu after = peer_.cpu();
  return {.steps = answer.at("steps"),
          .held = answer.at("held"),
          .trained = answer.at("trained"),
          .tail = answer.at("durable").get<double>() - answer.at("trained").get<double>(),
          .trainer_cpu = after.leader - before.leader,
          .helper_cpu = after.others - before.others};
}

double TrainerProcess::highest_memory(int steps, int save_every, const std::string& directory) {
  std::uint64_t highest = 0;
  (void)peer_.ask(train_command(steps, save_every, directory), kAnswerSecs, [&] {
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
