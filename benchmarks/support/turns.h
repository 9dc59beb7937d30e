// Rounds in which everybody has one turn.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace bench {

/// What somebody does in each round.
struct Turn {
  std::string label;
  /// `round` is counted from 0. Throws ContestantFailed if there is to be no other turn.
  std::function<void(int round)> take;
};

/// Called between rounds, and after the last one, with what is done: "demo, 3 of 5 rounds".
using AfterRound = std::function<void(const std::string& done)>;

/// Each round in another order, the same ones in every run, so that no one always follows the same
/// neighbour. Who failed is left out from then on. Before each turn a line on stderr says which one
/// it is, and about how long all of them will still take.
/// @param part what is measured: for its sign of life, and for `notes`
/// @param notes who failed is added here
void take_turns(const std::string& part, const std::vector<Turn>& turns, int rounds,
                std::vector<std::string>& notes, const AfterRound& after_round);

}  // namespace bench
