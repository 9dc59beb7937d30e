// Rounds in which every contestant has one turn, and what came out of them.
#pragma once

#include "support/contestant.h"
#include "support/contestant_series.h"
#include "support/report.h"
#include "support/turns.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// See Contestant for what `Figures` is.
template <class Figures>
class Rounds {
 public:
  using Contestants = std::vector<std::unique_ptr<Contestant<Figures>>>;
  using Metrics = std::span<const Metric<Figures>>;

  /// `name` of this part: of its ids, its headings and its sign of life. `metrics`: all that are
  /// looked at; they outlive this. `gigabytes`: of the state.
  Rounds(std::string name, double gigabytes, Metrics metrics, Contestants contestants)
      : name_(std::move(name)) {
    for (auto& contestant : contestants) {
      ContestantSeries<Figures> series(name_ + ".", *contestant, metrics, gigabytes);
      entries_.push_back({std::move(contestant), std::move(series)});
    }
  }

  /// See `take_turns`.
  void run(int rounds, const AfterRound& after_round) {
    std::vector<Turn> turns;
    for (Entry& entry : entries_) {
      turns.push_back({entry.contestant->label(), [&](int round) { turn(entry, round); }});
    }
    take_turns(name_, turns, rounds, notes_, after_round);
  }

  /// A section for each of the metrics that somebody has.
  void add_to(Report& report, Metrics metrics) const {
    for (const Metric<Figures>& metric : metrics) {
      if (std::ranges::all_of(entries_, [&](const Entry& entry) {
            return entry.series.of(metric.id).samples.empty();
          })) {
        continue;
      }
      report.heading(fmt::format("{}: {}", name_, metric.label));
      for (const Entry& entry : entries_) report.add(entry.series.of(metric.id));
    }
  }

  /// Who failed, and what to beware of.
  void add_notes_to(Report& report) const {
    for (const std::string& text : notes_) report.note(text);
  }

  /// Null if there is no such contestant.
  [[nodiscard]] const ContestantSeries<Figures>* find(const std::string& id) const {
    for (const Entry& entry : entries_) {
      if (entry.contestant->id() == id) return &entry.series;
    }
    return nullptr;
  }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  struct Entry {
    std::unique_ptr<Contestant<Figures>> contestant;
    ContestantSeries<Figures> series;
  };

  void turn(Entry& entry, int round) {
    const Figures run = entry.contestant->run(round);
    entry.series.add(run);
    for (const std::string& text : run.notes) {
      note(fmt::format("{}: {}: {}", name_, entry.contestant->label(), text));
    }
  }

  void note(const std::string& text) {
    if (std::ranges::find(notes_, text) == notes_.end()) notes_.push_back(text);
  }

  std::string name_;
  std::vector<Entry> entries_;
  std::vector<std::string> notes_;
};

}  // namespace bench
