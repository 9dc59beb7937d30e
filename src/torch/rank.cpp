#include "torch/rank.h"

#include <ckptring/checkpointer.h>

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace ckptring {
namespace torch_state {
namespace {

int number_from_environment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return otherwise;
  const std::string_view digits(text);
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) {
    throw Error(ErrorCode::invalid_argument, "read the environment's", name,
                fmt::format("\"{}\" is not a whole number", digits));
  }
  return number;
}

}  // namespace

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

}  // namespace torch_state

RankInfo default_rank_info() {
  const RankInfo rank{torch_state::number_from_environment("RANK", 0),
                      torch_state::number_from_environment("WORLD_SIZE", 1)};
  torch_state::check_rank(rank);
  return rank;
}

}  // namespace ckptring
