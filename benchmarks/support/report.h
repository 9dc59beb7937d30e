// What a benchmark found: a table for people, JSON for programs.
#pragma once

#include "support/series.h"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace bench {

/// What is to be reached. The median counts.
struct Goal {
  enum class Kind { at_most, at_least };
  Series measured;
  Kind kind = Kind::at_most;
  double limit = 0;

  [[nodiscard]] bool reached() const;
};

class Report {
 public:
  /// `name` of the benchmark; `parameters` as the JSON file shall have them.
  Report(std::string name, nlohmann::ordered_json parameters);

  /// Adds to the list `name` among the parameters.
  void parameter(const std::string& name, nlohmann::ordered_json value);
  /// Series added from here on stand below this heading in the table.
  void heading(std::string text);
  /// Series without samples are left out.
  void add(Series series);
  void add(Goal goal);
  /// A sentence below the table: what was not measured, or what to beware of.
  void note(std::string text);
  /// Nothing was measured, for this reason: there is no table then, and the JSON file says so.
  void skip(std::string why);

  [[nodiscard]] bool goals_reached() const;

  void print() const;
  /// What the JSON file holds.
  [[nodiscard]] nlohmann::ordered_json to_json() const;

 private:
  struct Section {
    std::string heading;
    std::vector<Series> series;
  };
  std::string name_;
  nlohmann::ordered_json parameters_;
  std::vector<Section> sections_;
  std::vector<Goal> goals_;
  std::vector<std::string> notes_;
  std::string skipped_;
};

}  // namespace bench
