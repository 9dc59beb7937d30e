// What is to be reached: ratios of what was measured in the same rounds.
#pragma once

#include "save/figures.h"
#include "save/state_shape.h"
#include "support/report.h"

#include <cstddef>

namespace bench {

/// Adds the goals of one shape. `tensors`: of its state.
void add_goals(Report& report, const SaveRounds& rounds, Shape shape, std::size_t tensors);

}  // namespace bench
