#include "save/goals.h"

#include "support/goals.h"
#include "support/peer_ways.h"
#include "support/series.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

/// Of a disk that somebody else has written to at more than half of its limit, twice as fast is
/// more than there is; then this share of the limit is asked for.
constexpr double kShareOfLimit = 0.9;

using SaveGoals = Goals<RunFigures>;

double median(const Series& series) { return quartiles(series.samples).median; }

/// The slower of our two, in each round, against each peer.
void add_peer_goals(SaveGoals& goals) {
  Series ours = goals.series("async", "durable");
  const Series sync = goals.series("sync", "durable");
  for (std::size_t i = 0; i < std::min(ours.samples.size(), sync.samples.size()); ++i) {
    ours.samples[i] = std::min(ours.samples[i], sync.samples[i]);
  }
  const Series bare = goals.series("bare", "durable");
  for (const PeerWay& way : peer_ways()) {
    const Series peer = goals.series(way.id, "durable");
    if (peer.samples.empty() || bare.samples.empty()) continue;
    const double room = median(bare) / median(peer);
    goals.at_least(std::string("durable_to_") + way.id,
                   fmt::format("durable rate, to that of {}", way.label), ratio(ours, peer),
                   room >= 2 ? 2 : kShareOfLimit * room);
  }
}

/// What planning takes beyond looking at every tensor, in microseconds a tensor.
Series planning_beyond_walk(const SaveGoals& goals, std::size_t tensors) {
  const Series planned = goals.series("async", "planned");
  const Series walked = goals.series("memcpy", "walked");
  Series beyond{"", "", "us", {}};
  for (std::size_t i = 0; i < std::min(planned.samples.size(), walked.samples.size()); ++i) {
    beyond.add((planned.samples[i] - walked.samples[i]) * 1e3 / static_cast<double>(tensors));
  }
  return beyond;
}

/// How much longer the one takes than the other, in each round.
Series longer(const Series& one, const Series& other) {
  Series more{"", "", one.unit, {}};
  for (std::size_t i = 0; i < std::min(one.samples.size(), other.samples.size()); ++i) {
    more.add(one.samples[i] - other.samples[i]);
  }
  return more;
}

}  // namespace

void add_goals(Report& report, const SaveRounds& rounds, Shape shape, std::size_t tensors) {
  SaveGoals goals(report, rounds);
  goals.at_most("staged_to_memcpy", "staged, to memcpy",
                goals.ratio_of("async", "staged", "memcpy", "staged"), 1.1);
  goals.at_most("first_to_steady", "a first save staged, to the later ones",
                goals.ratio_of("async", "first_staged", "async", "staged"), 1.3);
  goals.at_most("returned", fmt::format("save returns, {} tensors", tensors),
                goals.series("async", "returned"), shape == Shape::small ? 30 : 1);
  if (shape == Shape::gpt2) {
    goals.at_most(
        "sampling", fmt::format("sampling {} tensors, in save", tensors),
        longer(goals.series("async", "returned"), goals.series("async_unsampled", "returned")),
        0.3);
  }
  goals.at_least("async_to_bare", "async durable rate, to the bare writer's",
                 goals.ratio_of("async", "durable", "bare", "durable"), kShareOfLimit);
  goals.at_least("sync_to_bare", "sync durable rate, to the bare writer's",
                 goals.ratio_of("sync", "durable", "bare", "durable"), kShareOfLimit);
  goals.at_least("async_to_fio", "async durable rate, to fio's",
                 goals.ratio_of("async", "durable", "fio", "durable"), 1);
  goals.at_least("sync_to_fio", "sync durable rate, to fio's",
                 goals.ratio_of("sync", "durable", "fio", "durable"), 1);
  add_peer_goals(goals);
  goals.at_most("helper_cpu", "processor time of the checkpoint process",
                goals.series("async", "helper_cpu"), 0.10);
  goals.at_most("extra_memory", "memory of trainer and helper beyond the ring",
                goals.series("async", "beyond_ring"), 16);
  // With few tensors it is not the tensors that planning takes time for.
  if (shape != Shape::large) {
    goals.at_most("planning_beyond_walk", "planning beyond the walk, per tensor",
                  planning_beyond_walk(goals, tensors), 1);
  }
  // Rates are the inverse of times.
  goals.at_most("small_to_large_staged", "staged, to the same bytes in 4 tensors",
                goals.ratio_of("async", "staged", "async_as_large", "staged"), 1.3);
  goals.at_most("small_to_large_durable", "time until durable, to the same bytes in 4 tensors",
                goals.ratio_of("async_as_large", "durable", "async", "durable"), 1.3);
}

}  // namespace bench
