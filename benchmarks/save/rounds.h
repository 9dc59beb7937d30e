// Rounds in which every contestant has one turn, and what came out of them.
#pragma once

#include "save/contestant.h"
#include "save/figures.h"
#include "support/report.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace bench {

class Rounds {
 public:
  /// `name` of this part: of its ids, its headings and its sign of life. `gigabytes`: of the state.
  Rounds(std::string name, double gigabytes, std::vector<std::unique_ptr<Contestant>> contestants);

  /// Each round in another order, the same ones in every run, so that no one always follows the
  /// same neighbour. Memory is looked at in the first round. A contestant that failed is left out
  /// from then on.
  void run(int rounds, int saves);

  /// All series, one section for each figure, and who failed.
  void add_to(Report& report) const;

  /// Null if there is no such contestant.
  [[nodiscard]] const ContestantSeries* find(const std::string& id) const;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  struct Entry {
    std::unique_ptr<Contestant> contestant;
    ContestantSeries series;
    bool failed = false;
  };
  void turn(Entry& entry, const Effort& effort, int round);
  void note(const std::string& text);

  std::string name_;
  std::vector<Entry> entries_;
  std::vector<std::string> notes_;
};

}  // namespace bench
