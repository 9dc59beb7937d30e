#include "train/goals.h"

#include "support/peer_ways.h"

#include <fmt/format.h>

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

double median_of(const Pairs& pairs, const char* quantity) {
  return quartiles(pairs.series("async", quantity).samples).median;
}

/// Each checkpoint's loss to one figure: where little is lost, single pairs are mostly chance.
Series lost_to(const Pairs& pairs, double milliseconds, const std::string& id,
               const std::string& label) {
  Series ratio{pairs.name() + "." + id, pairs.name() + ": lost, to " + label, "x", {}};
  for (const double lost : pairs.series("async", "lost").samples) ratio.add(lost / milliseconds);
  return ratio;
}

}  // namespace

void add_goals(Report& report, const Pairs& pairs) {
  // It failed before the end of its first turn, and a note says so.
  if (pairs.series("async", "copied").samples.empty()) return;
  const auto best = best_peer(pairs);
  if (best && best->lost > 0) {
    report.add(Goal{lost_to(pairs, best->lost, "lost_to_best_peer",
                            fmt::format("the best peer's ({})", best->label)),
                    Goal::Kind::at_most, kMostToBestPeer});
  } else if (best) {
    report.note(
        fmt::format("{}: {} lost nothing that could be measured", pairs.name(), best->label));
  }
  // What nobody can do without: copying the state, and the processor time of writing it, which the
  // training lacks where it keeps every core busy.
  const double work = median_of(pairs, "copied") + median_of(pairs, "helper_cpu") * 1e3;
  report.add(Goal{lost_to(pairs, work, "lost_to_work", "a memcpy and the helper's processor time"),
                  Goal::Kind::at_most, kMostToWork});
}

}  // namespace bench
