// What a file says of itself beside its state.
#pragma once

#include <ckptring/checkpoints.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_id.h>

#include <cstdint>
#include <optional>

namespace ckptring::plan {

struct FileFacts {
  RankInfo rank = {};
  std::optional<std::int64_t> step = {};
  Metadata metadata = {};
  std::optional<SaveId> save_id = {};
};

}  // namespace ckptring::plan
