// Goals on what was measured in the same rounds.
#pragma once

#include "support/report.h"
#include "support/rounds.h"
#include "support/series.h"

#include <string>
#include <utility>

namespace bench {

template <class Figures>
class Goals {
 public:
  /// Adds to `report`. Both outlive this.
  Goals(Report& report, const Rounds<Figures>& rounds) : report_(report), rounds_(rounds) {}

  void at_most(const std::string& name, const std::string& label, Series measured, double limit) {
    add(name, label, std::move(measured), Goal::Kind::at_most, limit);
  }
  void at_least(const std::string& name, const std::string& label, Series measured, double limit) {
    add(name, label, std::move(measured), Goal::Kind::at_least, limit);
  }

  /// Empty if either was not measured.
  [[nodiscard]] Series ratio_of(const char* above, const char* of_above, const char* below,
                                const char* of_below) const {
    return ratio(series(above, of_above), series(below, of_below));
  }
  [[nodiscard]] Series series(const std::string& contestant, const char* metric) const {
    const ContestantSeries<Figures>* const found = rounds_.find(contestant);
    return found != nullptr ? found->of(metric) : Series{};
  }

 private:
  void add(const std::string& name, const std::string& label, Series measured, Goal::Kind kind,
           double limit) {
    measured.id = rounds_.name() + "." + name;
    measured.label = rounds_.name() + ": " + label;
    report_.add(Goal{std::move(measured), kind, limit});
  }

  Report& report_;
  const Rounds<Figures>& rounds_;
};

}  // namespace bench
