// From the figures of single runs to series over the rounds.
#pragma once

#include "support/contestant.h"
#include "support/series.h"

#include <map>
#include <optional>
#include <span>
#include <string>

namespace bench {

/// A figure that each round adds to, in the unit that people read.
template <class Figures>
struct Metric {
  const char* id;
  const char* label;
  const char* unit;
  /// `gigabytes`: of the state. Empty where the contestant has no such figure.
  std::optional<double> (*of)(const Figures& run, double gigabytes);
};

/// All series of one contestant.
template <class Figures>
class ContestantSeries {
 public:
  /// `prefix` of the series' ids: "gpt2." makes "gpt2.async.staged". `metrics` outlive this.
  ContestantSeries(const std::string& prefix, const Contestant<Figures>& contestant,
                   std::span<const Metric<Figures>> metrics, double gigabytes)
      : metrics_(metrics), gigabytes_(gigabytes) {
    for (const Metric<Figures>& metric : metrics_) {
      series_[metric.id] =
          Series{prefix + contestant.id() + "." + metric.id, contestant.label(), metric.unit, {}};
    }
  }

  void add(const Figures& run) {
    for (const Metric<Figures>& metric : metrics_) {
      if (const std::optional<double> sample = metric.of(run, gigabytes_)) {
        series_.at(metric.id).add(*sample);
      }
    }
  }

  /// Empty if the contestant has no such figure, or has not run.
  [[nodiscard]] const Series& of(const std::string& metric) const { return series_.at(metric); }

 private:
  std::span<const Metric<Figures>> metrics_;
  double gigabytes_;
  std::map<std::string, Series> series_;
};

}  // namespace bench
