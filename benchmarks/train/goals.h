// What is to be reached.
#pragma once

#include "support/report.h"
#include "train/pairs.h"

namespace bench {

void add_goals(Report& report, const Pairs& pairs);

}  // namespace bench
