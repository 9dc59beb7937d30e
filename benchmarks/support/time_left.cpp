#include "support/time_left.h"

#include <fmt/format.h>

#include <algorithm>

namespace bench {

TimeLeft::TimeLeft(std::size_t everybody, int rounds)
    : players_(everybody, Player{.left = rounds}) {}

void TimeLeft::add_turn(std::size_t who, double seconds) {
  Player& player = players_.at(who);
  player.seconds += seconds;
  ++player.taken;
  player.left = std::max(player.left - 1, 0);
}

void TimeLeft::leave_out(std::size_t who) { players_.at(who).left = 0; }

std::optional<double> TimeLeft::seconds() const {
  Player all;
  for (const Player& player : players_) {
    all.seconds += player.seconds;
    all.taken += player.taken;
  }
  if (all.taken == 0) return std::nullopt;
  double seconds = 0;
  for (const Player& player : players_) {
    const Player& like = player.taken > 0 ? player : all;
    seconds += player.left * like.seconds / like.taken;
  }
  return seconds;
}

std::string time_in_words(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  if (seconds < 100 * 60) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace bench
