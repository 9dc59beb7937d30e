#include "save/growth.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace bench {
namespace {

constexpr double kGpt2Gigabytes = 1.493;
constexpr double kMebibyte = 1 << 20;
constexpr double kFlat = 1.1;

}  // namespace

Growth::Growth(const WorkDirectory& work, CurrentState& states,
               const ckptring::CheckpointerConfig& config, int saves,
               const std::vector<double>& gigabytes) {
  for (const double size : gigabytes) {
    const StateSpec spec{Shape::gpt2, size / kGpt2Gigabytes};
    const std::string label = fmt::format("{:g} GB", size);
    const auto series = [&](const char* id, const char* unit) {
      return Series{fmt::format("growth.{:g}gb.{}", size, id), label, unit, {}};
    };
    const SavedState& state = states.get(spec);
    auto setting = std::make_unique<Setting>(
        Setting{work, states, spec, file_bytes_of(work, state), config, saves});
    auto contestant = std::make_unique<AsyncSaves>(*setting, "async", label, AsyncKind{});
    sizes_.push_back({static_cast<double>(state.bytes) * 1e-9, std::move(setting),
                      std::move(contestant), series("staged", "ms/GB"), series("durable", "ms/GB"),
                      series("memory", "MiB/GB"), series("beyond_ring", "MiB")});
  }
}

void Growth::run(int rounds, const AfterRound& after_round) {
  std::vector<Turn> turns;
  for (Size& size : sizes_) {
    turns.push_back({size.contestant->label(), [&](int round) { turn(size, round); }});
  }
  take_turns("growth", turns, rounds, notes_, after_round);
}

void Growth::turn(Size& size, int round) {
  const RunFigures run = size.contestant->run(round);
  size.staged.add(run.steady.staged.value() * 1e3 / size.gigabytes);
  size.durable.add(run.steady.durable.value() * 1e3 / size.gigabytes);
  if (!run.memory) return;
  size.memory.add(run.memory->beyond_state / kMebibyte / size.gigabytes);
  size.beyond_ring.add(run.memory->beyond_ring.value() / kMebibyte);
}

void Growth::add_to(Report& report) const {
  const auto section = [&](const char* heading, Series Size::*series) {
    report.heading(heading);
    for (const Size& size : sizes_) report.add(size.*series);
  };
  section("growth: Until the state may change again", &Size::staged);
  section("growth: From save to durable", &Size::durable);
  section("growth: Memory of trainer and helper beyond the state", &Size::memory);
  section("growth: The same beyond the ring", &Size::beyond_ring);
  for (const std::string& text : notes_) report.note(text);
  const auto less = [](const Size& a, const Size& b) { return a.gigabytes < b.gigabytes; };
  const auto smallest = std::ranges::min_element(sizes_, less);
  const auto largest = std::ranges::max_element(sizes_, less);
  if (smallest == largest) return;
  const auto goal = [&](const char* id, const char* what, Series Size::*series) {
    report.add(Goal{{std::string("growth.") + id,
                     fmt::format("growth: {} per GB, {} to {}", what, largest->contestant->label(),
                                 smallest->contestant->label()),
                     "x", ratios((*largest).*series, (*smallest).*series)},
                    Goal::Kind::at_most,
                    kFlat});
  };
  goal("staged", "staged", &Size::staged);
  goal("durable", "durable", &Size::durable);
  goal("memory", "memory", &Size::memory);
}

}  // namespace bench
