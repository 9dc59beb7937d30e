// From the figures of single runs to series over the rounds.
#pragma once

#include "save/contestant.h"
#include "support/process.h"
#include "support/series.h"

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace bench {

/// Calls `save` so many times. Each median is of the saves that have that figure.
SaveFigures median_of(int saves, const std::function<SaveFigures()>& save);

/// What `now` is beyond `before`. May be less than nothing.
MemoryFigures growth_of(const ProcessMemory& before, const ProcessMemory& now);

/// A figure that each round adds to, in the unit that people read.
struct Metric {
  const char* id;
  const char* label;
  const char* unit;
  /// `gigabytes`: of the state. Empty where the contestant has no such figure.
  std::optional<double> (*of)(const RunFigures& run, double gigabytes);
};

/// All there are: those that compare contestants first.
std::span<const Metric> metrics();
/// Where the time of one save goes, in its order, by the SaveReport.
std::span<const Metric> phases();

/// All series of one contestant.
class ContestantSeries {
 public:
  /// `prefix` of the series' ids: "gpt2." makes "gpt2.async.staged".
  ContestantSeries(const std::string& prefix, const Contestant& contestant, double gigabytes);

  void add(const RunFigures& run);
  /// Empty if the contestant has no such figure, or has not run.
  [[nodiscard]] const Series& of(const std::string& metric) const { return series_.at(metric); }

 private:
  double gigabytes_;
  std::map<std::string, Series> series_;
};

}  // namespace bench
