// What comes out of a contestant's run.
#pragma once

#include "support/contestant.h"
#include "support/contestant_series.h"
#include "support/rounds.h"

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bench {

enum class LoadKind {
  full,      ///< everything in the file, as a new state
  in_place,  ///< everything, into a state that is there
  partial,   ///< every tenth tensor, into a state that has only these
};
inline constexpr std::array kLoadKinds{LoadKind::full, LoadKind::in_place, LoadKind::partial};

/// Of the file's pages.
enum class Cache {
  cold,  ///< none of them is in the page cache
  warm,  ///< all are
};
inline constexpr std::array kCaches{Cache::cold, Cache::warm};

/// "full", "in_place" or "partial", as loaders are told it.
std::string name_of(LoadKind kind);

/// One load. Per GB of what was to be loaded, not of what was read.
struct LoadFigures {
  std::optional<double> rate;  ///< GB/s
  std::optional<double> cpu;   ///< processor time, s/GB
};

/// What one contestant did in one round.
struct LoadRun {
  LoadFigures& of(LoadKind kind, Cache cache) {
    return figures[static_cast<std::size_t>(cache)][static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] const LoadFigures& of(LoadKind kind, Cache cache) const {
    return figures[static_cast<std::size_t>(cache)][static_cast<std::size_t>(kind)];
  }

  std::array<std::array<LoadFigures, kLoadKinds.size()>, kCaches.size()> figures;
  std::vector<std::string> notes;  ///< what to beware of
};

using LoadContestant = Contestant<LoadRun>;
using LoadMetric = Metric<LoadRun>;
using LoadRounds = Rounds<LoadRun>;

/// All there are: "in_place_warm", "in_place_warm_cpu" and so on.
std::span<const LoadMetric> load_metrics();

}  // namespace bench
