#include "save/rounds.h"

#include "support/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

namespace bench {

Rounds::Rounds(std::string name, double gigabytes,
               std::vector<std::unique_ptr<Contestant>> contestants)
    : name_(std::move(name)) {
  for (std::unique_ptr<Contestant>& contestant : contestants) {
    ContestantSeries series(name_ + ".", *contestant, gigabytes);
    entries_.push_back({std::move(contestant), std::move(series)});
  }
}

void Rounds::run(int rounds, int saves) {
  std::vector<Entry*> order;
  for (Entry& entry : entries_) order.push_back(&entry);
  std::mt19937 random(1);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (Entry* entry : order) {
      if (entry->failed) continue;
      progress(
          fmt::format("{}, round {}/{}: {}", name_, round + 1, rounds, entry->contestant->label()));
      turn(*entry, {.saves = saves, .look_at_memory = round == 0}, round);
    }
  }
  progress("");
}

void Rounds::turn(Entry& entry, const Effort& effort, int round) {
  const std::string& label = entry.contestant->label();
  try {
    const RunFigures run = entry.contestant->run(effort);
    entry.series.add(run);
    for (const std::string& text : run.notes) note(fmt::format("{}: {}: {}", name_, label, text));
  } catch (const ContestantFailed& error) {
    entry.failed = true;
    note(fmt::format("{}: {} failed in round {}: {}", name_, label, round + 1, error.what()));
  }
}

void Rounds::note(const std::string& text) {
  if (std::ranges::find(notes_, text) == notes_.end()) notes_.push_back(text);
}

void Rounds::add_to(Report& report) const {
  for (const Metric& metric : metrics()) {
    if (std::ranges::all_of(entries_, [&](const Entry& entry) {
          return entry.series.of(metric.id).samples.empty();
        })) {
      continue;
    }
    report.heading(fmt::format("{}: {}", name_, metric.label));
    for (const Entry& entry : entries_) report.add(entry.series.of(metric.id));
  }
  if (const ContestantSeries* async = find("async")) {
    report.heading(name_ + ": Where the time of an async save goes");
    for (const Metric& phase : phases()) {
      Series series = async->of(phase.id);
      series.label = phase.label;
      report.add(std::move(series));
    }
  }
  for (const std::string& text : notes_) report.note(text);
}

const ContestantSeries* Rounds::find(const std::string& id) const {
  for (const Entry& entry : entries_) {
    if (entry.contestant->id() == id) return &entry.series;
  }
  return nullptr;
}

}  // namespace bench
