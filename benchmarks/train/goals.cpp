#include "train/goals.h"

#include "support/peer_ways.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

namespace bench {
namespace {

constexpr double kMostToBestPeer = 0.2;
constexpr double kMostToWork = 2;

struct BestPeer {
  const char* label;
  double lost;  ///< median
};

std::optional<BestPeer> best_peer(const Pairs& pairs) {
  std::optional<BestPeer> best;
  for (const PeerWay& way : peer_ways()) {
    const Series lost = pairs.series(way.id, "lost");
    if (lost.samples.empty()) continue;
    const double median = quartiles(lost.samples).median;
    if (!best || median < best->lost) best = {way.label, median};
  }
  return best;
}

/// To what nobody can do without: copying the state, and the processor time of writing it, which
/// the training lacks where it keeps every core busy.
Series lost_to_work(const Pairs& pairs) {
  const Series lost = pairs.series("async", "lost");
  const Series copied = pairs.series("async", "copied");
  const Series helper = pairs.series("async", "helper_cpu");
  Series ratio{pairs.name() + ".lost_to_work",
               pairs.name() + ": lost, to a memcpy and the helper's processor time",
               "x",
               {}};
  for (std::size_t i = 0; i < copied.samples.size(); ++i) {
    ratio.add(lost.samples[i] / (copied.samples[i] + helper.samples[i] * 1e3));
  }
  return ratio;
}

}  // namespace

void add_goals(Report& report, const Pairs& pairs) {
  if (const auto best = best_peer(pairs)) {
    if (best->lost > 0) {
      Series ratio{fmt::format("{}.lost_to_best_peer", pairs.name()),
                   fmt::format("{}: lost, to the best peer's ({})", pairs.name(), best->label),
                   "x",
                   {}};
      // By one figure: where little is lost, single rounds are mostly chance.
      for (const double lost : pairs.series("async", "lost").samples) ratio.add(lost / best->lost);
      report.add(Goal{std::move(ratio), Goal::Kind::at_most, kMostToBestPeer});
    } else {
      report.note(
          fmt::format("{}: {} lost nothing that could be measured", pairs.name(), best->label));
    }
  }
  report.add(Goal{lost_to_work(pairs), Goal::Kind::at_most, kMostToWork});
}

}  // namespace bench
