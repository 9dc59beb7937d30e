#include "save/figures.h"

#include <array>
#include <cstddef>

namespace bench {
namespace {

using Figure = std::optional<double> SaveFigures::*;

constexpr std::array<Figure, 13> kFigures{
    &SaveFigures::returned, &SaveFigures::staged,      &SaveFigures::written,
    &SaveFigures::durable,  &SaveFigures::trainer_cpu, &SaveFigures::helper_cpu,
    &SaveFigures::planned,  &SaveFigures::copied,      &SaveFigures::stalled,
    &SaveFigures::drained,  &SaveFigures::fsync,       &SaveFigures::commit,
    &SaveFigures::walked};

constexpr double kMebibyte = 1 << 20;

template <Figure figure, bool first>
std::optional<double> seconds_of(const RunFigures& run) {
  if (!first) return run.steady.*figure;
  return run.first ? (*run.first).*figure : std::nullopt;
}

template <Figure figure, bool first = false>
std::optional<double> milliseconds(const RunFigures& run, double) {
  const std::optional<double> seconds = seconds_of<figure, first>(run);
  return seconds ? std::optional(*seconds * 1e3) : std::nullopt;
}

template <Figure figure, bool first = false>
std::optional<double> rate(const RunFigures& run, double gigabytes) {
  const std::optional<double> seconds = seconds_of<figure, first>(run);
  return seconds ? std::optional(gigabytes / *seconds) : std::nullopt;
}

template <Figure figure>
std::optional<double> per_gigabyte(const RunFigures& run, double gigabytes) {
  const std::optional<double> seconds = run.steady.*figure;
  return seconds ? std::optional(*seconds / gigabytes) : std::nullopt;
}

template <auto figure>
std::optional<double> mebibytes(const RunFigures& run, double) {
  if (!run.memory) return std::nullopt;
  const std::optional<double> bytes = (*run.memory).*figure;
  return bytes ? std::optional(*bytes / kMebibyte) : std::nullopt;
}

std::optional<double> prepared(const RunFigures& run, double) {
  return run.prepared ? std::optional(*run.prepared * 1e3) : std::nullopt;
}

constexpr std::array kMetrics{
    Metric{"returned", "Until save returns", "ms", milliseconds<&SaveFigures::returned>},
    Metric{"staged", "Until the state may change again, where that is later", "ms",
           milliseconds<&SaveFigures::staged>},
    Metric{"first_returned", "A first save: until it returns", "ms",
           milliseconds<&SaveFigures::returned, true>},
    Metric{"first_staged", "A first save: until the state may change again", "ms",
           milliseconds<&SaveFigures::staged, true>},
    Metric{"durable", "From save to durable", "GB/s", rate<&SaveFigures::durable>},
    Metric{"written", "From save to written, without fsync", "GB/s", rate<&SaveFigures::written>},
    Metric{"first_durable", "A first save: to durable", "GB/s", rate<&SaveFigures::durable, true>},
    Metric{"prepared", "Prepared before the first save", "ms", prepared},
    Metric{"trainer_cpu", "Processor time of the trainer", "s/GB",
           per_gigabyte<&SaveFigures::trainer_cpu>},
    Metric{"helper_cpu", "Processor time of its helpers", "s/GB",
           per_gigabyte<&SaveFigures::helper_cpu>},
    Metric{"walked", "A walk over the tensors' metadata, alone", "ms",
           milliseconds<&SaveFigures::walked>},
    Metric{"memory", "Memory of all processes beyond the state (PSS), highest seen", "MiB",
           mebibytes<&MemoryFigures::beyond_state>},
    Metric{"beyond_ring", "The same beyond the ring", "MiB",
           mebibytes<&MemoryFigures::beyond_ring>},
    Metric{"helper_pss", "The helper without the ring (PSS), highest seen", "MiB",
           mebibytes<&MemoryFigures::helper_pss>},
    Metric{"page_tables", "Page tables of all processes beyond those before, highest seen", "MiB",
           mebibytes<&MemoryFigures::page_tables>},
};

constexpr std::array kPhases{
    Metric{"planned", "planned", "ms", milliseconds<&SaveFigures::planned>},
    Metric{"copied", "staged, from the end of planning", "ms", milliseconds<&SaveFigures::copied>},
    Metric{"stalled", "stalled on a full ring", "ms", milliseconds<&SaveFigures::stalled>},
    Metric{"drained", "drained", "ms", milliseconds<&SaveFigures::drained>},
    Metric{"fsync", "fsync", "ms", milliseconds<&SaveFigures::fsync>},
    Metric{"commit", "commit", "ms", milliseconds<&SaveFigures::commit>},
};

}  // namespace

SaveFigures median_of(int saves, const std::function<SaveFigures()>& save) {
  std::array<std::vector<double>, kFigures.size()> samples;
  for (int i = 0; i < saves; ++i) {
    const SaveFigures figures = save();
    for (std::size_t f = 0; f < kFigures.size(); ++f) {
      if (const std::optional<double> sample = figures.*kFigures[f]) samples[f].push_back(*sample);
    }
  }
  SaveFigures median;
  for (std::size_t f = 0; f < kFigures.size(); ++f) {
    if (!samples[f].empty()) median.*kFigures[f] = quartiles(samples[f]).median;
  }
  return median;
}

MemoryFigures growth_of(const ProcessMemory& before, const ProcessMemory& now) {
  return {
      .beyond_state = static_cast<double>(now.pss) - static_cast<double>(before.pss),
      .page_tables = static_cast<double>(now.page_tables) - static_cast<double>(before.page_tables),
      .beyond_ring = {},
      .helper_pss = {}};
}

std::span<const Metric> metrics() { return kMetrics; }
std::span<const Metric> phases() { return kPhases; }

ContestantSeries::ContestantSeries(const std::string& prefix, const Contestant& contestant,
                                   double gigabytes)
    : gigabytes_(gigabytes) {
  for (const std::span<const Metric> all : {metrics(), phases()}) {
    for (const Metric& metric : all) {
      series_[metric.id] =
          Series{prefix + contestant.id() + "." + metric.id, contestant.label(), metric.unit, {}};
    }
  }
}

void ContestantSeries::add(const RunFigures& run) {
  for (const std::span<const Metric> all : {metrics(), phases()}) {
    for (const Metric& metric : all) {
      if (const std::optional<double> sample = metric.of(run, gigabytes_)) {
        series_.at(metric.id).add(*sample);
      }
    }
  }
}

}  // namespace bench
