#include "support/turns.h"

#include "support/contestant.h"
#include "support/progress.h"
#include "support/stopwatch.h"
#include "support/time_left.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <random>

namespace bench {
namespace {

/// ", about 8 min left"; nothing before the end of the first turn.
std::string left_in_words(const TimeLeft& left) {
  const std::optional<double> seconds = left.seconds();
  return seconds ? fmt::format(", about {} left", time_in_words(*seconds)) : "";
}

}  // namespace

void take_turns(const std::string& part, const std::vector<Turn>& turns, int rounds,
                std::vector<std::string>& notes, const AfterRound& after_round) {
  std::vector<std::size_t> order(turns.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<bool> failed(turns.size());
  TimeLeft left(turns.size(), rounds);
  std::mt19937 random(1);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (std::size_t place = 0; place < order.size(); ++place) {
      const std::size_t who = order[place];
      if (failed[who]) continue;
      const Turn& turn = turns[who];
      progress(fmt::format("{}, round {}/{}, turn {}/{}{}: {}", part, round + 1, rounds, place + 1,
                           order.size(), left_in_words(left), turn.label));
      const Stopwatch watch;
      try {
        turn.take(round);
        left.add_turn(who, watch.seconds());
      } catch (const ContestantFailed& error) {
        failed[who] = true;
        left.leave_out(who);
        notes.push_back(fmt::format("{}: {} failed in round {}: {}", part, turn.label, round + 1,
                                    error.what()));
      }
    }
    after_round(fmt::format("{}, {} of {} rounds", part, round + 1, rounds));
  }
}

}  // namespace bench
