#include "support/turns.h"

#include "support/contestant.h"
#include "support/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace bench {
namespace {

struct Place {
  const Turn* turn;
  bool failed = false;
};

}  // namespace

void take_turns(const std::string& part, const std::vector<Turn>& turns, int rounds,
                std::vector<std::string>& notes) {
  std::vector<Place> places;
  for (const Turn& turn : turns) places.push_back({&turn});
  std::vector<Place*> order;
  for (Place& place : places) order.push_back(&place);
  std::mt19937 random(1);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (Place* const place : order) {
      if (place->failed) continue;
      const std::string& label = place->turn->label;
      progress(fmt::format("{}, round {}/{}: {}", part, round + 1, rounds, label));
      try {
        place->turn->take(round);
      } catch (const ContestantFailed& error) {
        place->failed = true;
        notes.push_back(
            fmt::format("{}: {} failed in round {}: {}", part, label, round + 1, error.what()));
      }
    }
  }
  progress("");
}

}  // namespace bench
