// Checks that a rank can exist.
#pragma once

#include <ckptring/rank_info.h>

namespace ckptring::base {

/// @throws Error invalid_argument
void check_rank(const RankInfo& rank);

}  // namespace ckptring::base
