#include "base/rank.h"

#include "base/launcher.h"
#include "base/log.h"

#include <ckptring/error.h>
#include <ckptring/rank_info.h>

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

namespace ckptring {
namespace base {

void check_rank(const RankInfo& rank) {
  const auto refuse = [](std::string cause) {
    throw Error(ErrorCode::invalid_argument, "use RankInfo", "", std::move(cause));
  };
  if (rank.global_world_size < 1) {
    refuse(fmt::format("the world size is {}, it must be at least 1", rank.global_world_size));
  }
  if (rank.global_rank < 0) refuse(fmt::format("the rank is {}, below 0", rank.global_rank));
  if (rank.global_rank >= rank.global_world_size) {
    refuse(fmt::format("rank {} does not exist in a world of size {}", rank.global_rank,
                       rank.global_world_size));
  }
}

}  // namespace base

RankInfo default_rank_info() {
  const std::optional<base::Launch> launch = base::launched();
  if (!launch) return {};
  base::LogContext{launch->rank}.info("this is rank {} of {}: so says {} of the environment",
                                      launch->rank, launch->world_size, launch->named_by);
  return {launch->rank, launch->world_size};
}

}  // namespace ckptring
