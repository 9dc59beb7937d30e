// Timing a hand-off step by step, whatever hands over.
//
// A channel is made by the process that measures, used once, and has:
//   void open();       in each process of its sides, before anything else
//   class First;       the side that fills blocks and hands them over, or that asks
//   class Second;      the side that takes blocks and reads them, or that answers
// Both are made from (Channel&, std::uint64_t steps) by the thread that uses them, and have
//   void step();       one block, or one question and its answer; waits where it must
#pragma once

#include "handoff/sides.h"

#include <cstdint>

namespace bench {

struct Steps {
  std::uint64_t warm;  ///< not timed: the first touch of memory, cold caches
  std::uint64_t timed;
};

template <class End, class Channel>
SideTimes time_side(Channel& channel, Steps steps, Meeting& meeting) {
  End end(channel, steps.warm + steps.timed);
  for (std::uint64_t i = 0; i < steps.warm; ++i) end.step();
  meeting.wait();
  const SideClock clock;
  for (std::uint64_t i = 0; i < steps.timed; ++i) end.step();
  return clock.times();
}

/// Both sides at once, waiting for each other as the channel does.
template <class Channel>
BothTimes time_steps(Channel& channel, Apart apart, Steps steps) {
  return run_apart(
      apart, [&] { channel.open(); },
      [&](Meeting& meeting) { return time_side<typename Channel::First>(channel, steps, meeting); },
      [&](Meeting& meeting) {
        return time_side<typename Channel::Second>(channel, steps, meeting);
      });
}

struct Turns {
  std::uint64_t count;  ///< one more comes first, untimed
  std::uint64_t steps;  ///< of each; the channel has room for as many blocks
};

template <class End, class Channel>
SideTimes time_side_in_turns(Channel& channel, Turns turns, bool begins, Meeting& meeting) {
  End end(channel, (turns.count + 1) * turns.steps);
  SideTimes sum;
  for (std::uint64_t turn = 0; turn <= turns.count; ++turn) {
    if (!begins) meeting.wait();
    const SideClock clock;
    for (std::uint64_t i = 0; i < turns.steps; ++i) end.step();
    const SideTimes times = clock.times();
    if (begins) meeting.wait();
    meeting.wait();  // now both have had their turn
    if (turn == 0) continue;
    if (turn == 1) sum.began_ns = times.began_ns;
    sum.ended_ns = times.ended_ns;
    sum.cpu_seconds += times.cpu_seconds;
    sum.sleeps += times.sleeps;
  }
  return sum;
}

/// One side sleeps while the other has its turn, so that neither waits within one: the times are
/// those of the hand-off alone. What it costs to change turns is not in the processor times.
template <class Channel>
BothTimes time_in_turns(Channel& channel, Apart apart, Turns turns) {
  return run_apart(
      apart, [&] { channel.open(); },
      [&](Meeting& meeting) {
        return time_side_in_turns<typename Channel::First>(channel, turns, true, meeting);
      },
      [&](Meeting& meeting) {
        return time_side_in_turns<typename Channel::Second>(channel, turns, false, meeting);
      });
}

}  // namespace bench
