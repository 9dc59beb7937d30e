// Pairs of the same training with and without checkpoints, and what came out of them.
#pragma once

#include "support/report.h"
#include "support/series.h"
#include "support/turns.h"
#include "support/work_directory.h"
#include "train/trainer_process.h"

#include <map>
#include <string>
#include <vector>

namespace bench {

struct PairPlan {
  int rounds;
  int steps;       ///< of a round with checkpoints, and as many without; multiple of `save_every`
  int save_every;  ///< steps from save to save
  unsigned copy_threads;
};

class Pairs {
 public:
  Pairs(TrainerModel model, const PairPlan& plan, const std::vector<TrainerProgram>& programs);

  /// In each round every trainer has one turn, see `take_turns`: a fresh process trains
  /// `save_every` steps after a save, as many without, and so on.
  void run(const WorkDirectory& work, const AfterRound& after_round);

  /// All series, one section for each quantity, and who failed.
  void add_to(Report& report) const;

  /// Empty if there is no such trainer, or it has no such figure.
  [[nodiscard]] Series series(const std::string& trainer, const std::string& quantity) const;
  [[nodiscard]] const std::string& name() const noexcept { return model_.name; }

 private:
  struct Entry {
    TrainerProgram program;
    std::map<std::string, Series> series;  ///< by quantity; empty where it follows from others
  };
  void turn(Entry& entry, int round, const WorkDirectory& work);
  static void add_pair(Entry& entry, const LoopFigures& with, const LoopFigures& without);
  /// What was added, and what follows from it.
  [[nodiscard]] std::map<std::string, Series> all_series(const Entry& entry) const;

  const TrainerModel model_;
  const PairPlan plan_;
  std::vector<Entry> entries_;
  std::vector<std::string> notes_;
  double state_bytes_ = 0;
  double parameters_ = 0;
};

}  // namespace bench
