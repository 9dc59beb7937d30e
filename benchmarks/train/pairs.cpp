#include "train/pairs.h"

#include "support/contestant.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace bench {
namespace {

struct Quantity {
  const char* id;
  const char* label;
  const char* unit;
};

constexpr std::array kQuantities{
    Quantity{"lost", "Training time lost per checkpoint", "ms"},
    Quantity{"lost_by_steps", "The same, from the median of each step after a save", "ms"},
    Quantity{"held", "Of that in the call, and until the state might change", "ms"},
    Quantity{"tail", "After the last of the steps, until it was durable", "ms"},
    Quantity{"steps_without", "Step without checkpoints", "ms"},
    Quantity{"steps_with", "Step with checkpoints", "ms"},
    Quantity{"p90_without", "Step without checkpoints: 90 of 100 take at most", "ms"},
    Quantity{"p90_with", "Step with checkpoints: 90 of 100 take at most", "ms"},
    Quantity{"p99_without", "Step without checkpoints: 99 of 100 take at most", "ms"},
    Quantity{"p99_with", "Step with checkpoints: 99 of 100 take at most", "ms"},
    Quantity{"worst_without", "Step without checkpoints: the worst", "ms"},
    Quantity{"worst_with", "Step with checkpoints: the worst", "ms"},
    Quantity{"trainer_cpu", "Processor time of the trainer, per checkpoint", "s"},
    Quantity{"helper_cpu", "Processor time of its helpers, per checkpoint", "s"},
    Quantity{"memory", "Memory of all processes beyond the training (PSS), highest seen", "MiB"},
    Quantity{"copied", "A memcpy of the state by as many threads", "ms"},
};

/// With fewer steps the slowest of a hundred is chance.
constexpr std::size_t kStepsForP99 = 1000;

}  // namespace

Pairs::Pairs(TrainerModel model, const PairPlan& plan, const std::vector<TrainerProgram>& programs)
    : model_(std::move(model)), plan_(plan) {
  for (const TrainerProgram& program : programs) {
    Entry entry{program, {}};
    for (const Quantity& quantity : kQuantities) {
      entry.series[quantity.id] = {fmt::format("{}.{}.{}", model_.name, program.id, quantity.id),
                                   program.label,
                                   quantity.unit,
                                   {}};
    }
    entries_.push_back(std::move(entry));
  }
}

void Pairs::run(const WorkDirectory& work, const AfterRound& after_round) {
  std::vector<Turn> turns;
  for (Entry& entry : entries_) {
    turns.push_back({entry.program.label, [&](int round) {
                       try {
                         turn(entry, round, work);
                       } catch (const PeerError& error) {
                         throw ContestantFailed(error.what());
                       }
                     }});
  }
  take_turns(model_.name, turns, plan_.rounds, notes_, after_round);
}

void Pairs::turn(Entry& entry, int round, const WorkDirectory& work) {
  work.clear();
  TrainerProcess trainer(entry.program, model_);
  state_bytes_ = trainer.state_bytes();
  parameters_ = trainer.parameters();
  const bool look_at_memory = round == 0;
  const double memory_before = look_at_memory ? trainer.highest_memory(plan_.save_every, {}) : 0;
  trainer.prepare(work.path() + "/first");
  work.clear();
  for (int pair = 0; pair < plan_.steps / plan_.save_every; ++pair) {
    const auto train_saving = [&] {
      return trainer.train(plan_.save_every, work.path() + "/" + std::to_string(pair));
    };
    const auto train_only = [&] { return trainer.train(plan_.save_every, {}); };
    // Each is as often before the other as after it, so that what drifts is held against neither.
    if ((pair + round) % 2 == 0) {
      const LoopFigures with = train_saving();
      add_pair(entry, with, train_only());
    } else {
      const LoopFigures without = train_only();
      add_pair(entry, train_saving(), without);
    }
  }
  work.clear();
  if (look_at_memory) {
    const double memory = trainer.highest_memory(plan_.save_every, work.path() + "/last");
    entry.series.at("memory").add((memory - memory_before) / (1 << 20));
    work.clear();
  }
  if (entry.program.copies) {
    entry.series.at("copied").add(trainer.copy(plan_.copy_threads) * 1e3);
  }
}

void Pairs::add_pair(Entry& entry, const LoopFigures& with, const LoopFigures& without) {
  const auto add = [&](const char* quantity, double sample) {
    entry.series.at(quantity).add(sample);
  };
  add("lost", (with.trained - without.trained) * 1e3);
  add("held", with.held * 1e3);
  add("tail", with.tail * 1e3);
  add("trainer_cpu", with.trainer_cpu - without.trainer_cpu);
  add("helper_cpu", with.helper_cpu - without.helper_cpu);
  for (const double step : with.steps) add("steps_with", step * 1e3);
  for (const double step : without.steps) add("steps_without", step * 1e3);
}

std::map<std::string, Series> Pairs::all_series(const Entry& entry) const {
  std::map<std::string, Series> all = entry.series;
  for (const std::string kind : {"with", "without"}) {
    const std::vector<double>& steps = all.at("steps_" + kind).samples;
    if (steps.empty()) return all;
    all.at("p90_" + kind).add(quantile(steps, 0.9));
    if (steps.size() >= kStepsForP99) all.at("p99_" + kind).add(quantile(steps, 0.99));
    all.at("worst_" + kind).add(quantile(steps, 1));
  }
  // Steps of the same distance from a save are alike, and their median is not moved by those that
  // something else held up.
  const double usual = quantile(all.at("steps_without").samples, 0.5);
  const std::vector<double>& with = all.at("steps_with").samples;
  const auto save_every = static_cast<std::size_t>(plan_.save_every);
  double lost = 0;
  for (std::size_t place = 0; place < save_every; ++place) {
    std::vector<double> alike;
    for (std::size_t i = place; i < with.size(); i += save_every) alike.push_back(with[i]);
    lost += quantile(alike, 0.5) - usual;
  }
  all.at("lost_by_steps").add(lost);
  return all;
}

void Pairs::add_to(Report& report) const {
  report.parameter("models", {{"name", model_.name},
                              {"shape", model_.shape},
                              {"parameters", parameters_},
                              {"state_bytes", state_bytes_}});
  std::vector<std::map<std::string, Series>> trainers;
  for (const Entry& entry : entries_) trainers.push_back(all_series(entry));
  for (const Quantity& quantity : kQuantities) {
    if (std::ranges::all_of(
            trainers, [&](const auto& series) { return series.at(quantity.id).samples.empty(); })) {
      continue;
    }
    report.heading(fmt::format("{}: {}", model_.name, quantity.label));
    for (const auto& series : trainers) report.add(series.at(quantity.id));
  }
  for (const std::string& text : notes_) report.note(text);
}

Series Pairs::series(const std::string& trainer, const std::string& quantity) const {
  for (const Entry& entry : entries_) {
    if (entry.program.id == trainer) return all_series(entry).at(quantity);
  }
  return {};
}

}  // namespace bench
