// What is to be reached: ratios of what was measured in the same rounds.
#pragma once

#include "load/run_figures.h"
#include "support/report.h"

namespace bench {

void add_load_goals(Report& report, const LoadRounds& rounds);

}  // namespace bench
