#include "support/report.h"

#include "support/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <utility>

namespace bench {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const Series& series) {
  const Quartiles q = quartiles(series.samples);
  return {{"label", series.label}, {"unit", series.unit}, {"median", q.median},
          {"lower", q.lower},      {"upper", q.upper},    {"samples", series.samples}};
}

/// Four digits that count, whatever the size.
std::string number(double value) {
  const double size = value < 0 ? -value : value;
  if (size >= 1000) return fmt::format("{:.0f}", value);
  if (size >= 100) return fmt::format("{:.1f}", value);
  if (size >= 10) return fmt::format("{:.2f}", value);
  return fmt::format("{:.3f}", value);
}

void print_row(std::size_t width, const Series& series, const std::string& remark) {
  const Quartiles q = quartiles(series.samples);
  const std::string spread =
      series.samples.size() > 1 ? fmt::format("{} .. {}", number(q.lower), number(q.upper)) : "";
  fmt::print("  {:<{}}  {:>8} {:<5} {:<18} {}\n", series.label, width, number(q.median),
             series.unit, spread, remark);
}

}  // namespace

bool Goal::reached() const {
  const double median = quartiles(measured.samples).median;
  return kind == Kind::at_most ? median <= limit : median >= limit;
}

Report::Report(std::string name, ordered_json parameters)
    : name_(std::move(name)), parameters_(std::move(parameters)) {}

void Report::parameter(const std::string& name, ordered_json value) {
  parameters_[name].push_back(std::move(value));
}

void Report::heading(std::string text) { sections_.push_back({std::move(text), {}}); }

void Report::add(Series series) {
  if (series.samples.empty()) return;
  if (sections_.empty()) heading("");
  sections_.back().series.push_back(std::move(series));
}

void Report::add(Goal goal) {
  if (!goal.measured.samples.empty()) goals_.push_back(std::move(goal));
}

void Report::note(std::string text) { notes_.push_back(std::move(text)); }

void Report::skip(std::string why) { skipped_ = std::move(why); }

bool Report::goals_reached() const { return std::ranges::all_of(goals_, &Goal::reached); }

void Report::print() const {
  if (!skipped_.empty()) {
    fmt::print("skipped: {}\n", skipped_);
    return;
  }
  std::size_t width = 0;
  for (const Section& section : sections_) {
    for (const Series& series : section.series) width = std::max(width, series.label.size());
  }
  for (const Goal& goal : goals_) width = std::max(width, goal.measured.label.size());

  fmt::print("  {:<{}}  {:>8} {:<5} {}\n", "", width, "median", "", "quartiles");
  for (const Section& section : sections_) {
    fmt::print("\n{}\n", section.heading);
    for (const Series& series : section.series) {
      print_row(width, series, fmt::format("n={}", series.samples.size()));
    }
  }
  if (!goals_.empty()) fmt::print("\nGoals\n");
  for (const Goal& goal : goals_) {
    print_row(
        width, goal.measured,
        fmt::format("{} {} {}: {}", goal.kind == Goal::Kind::at_most ? "at most" : "at least",
                    number(goal.limit), goal.measured.unit, goal.reached() ? "reached" : "MISSED"));
  }
  if (!notes_.empty()) fmt::print("\n");
  for (const std::string& text : notes_) fmt::print("  note: {}\n", text);
}

ordered_json Report::to_json() const {
  ordered_json series = ordered_json::object();
  for (const Section& section : sections_) {
    for (const Series& one : section.series) series[one.id] = bench::to_json(one);
  }
  ordered_json goals = ordered_json::array();
  for (const Goal& goal : goals_) {
    ordered_json entry = {{"id", goal.measured.id}};
    entry.update(bench::to_json(goal.measured));
    entry[goal.kind == Goal::Kind::at_most ? "at_most" : "at_least"] = goal.limit;
    entry["reached"] = goal.reached();
    goals.push_back(std::move(entry));
  }
  ordered_json document = {
      {"benchmark", name_},
      {"date", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))},
      {"machine", describe_machine()},
      {"parameters", parameters_},
      {"series", std::move(series)},
      {"goals", std::move(goals)},
      {"notes", notes_},
  };
  if (!skipped_.empty()) document["skipped"] = skipped_;
  return document;
}

}  // namespace bench
