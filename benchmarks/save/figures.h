// Which figures of a run are looked at.
#pragma once

#include "save/run_figures.h"
#include "support/contestant_series.h"
#include "support/process.h"
#include "support/rounds.h"

#include <functional>
#include <span>

namespace bench {

/// Calls `save` so many times. Each median is of the saves that have that figure.
SaveFigures median_of(int saves, const std::function<SaveFigures()>& save);

/// What `now` is beyond `before`. May be less than nothing.
MemoryFigures growth_of(const ProcessMemory& before, const ProcessMemory& now);

using SaveMetric = Metric<RunFigures>;
using SaveRounds = Rounds<RunFigures>;

/// All there are.
std::span<const SaveMetric> metrics();
/// Those that compare contestants.
std::span<const SaveMetric> comparisons();
/// Where the time of one save goes, in its order, by the SaveReport.
std::span<const SaveMetric> phases();

}  // namespace bench
