#include "save/figures.h"

#include <array>
#include <cstddef>

namespace bench {
namespace {

using Figure = std::optional<double> SaveFigures::*;

constexpr std::array<Figure, 14> kFigures{
    &SaveFigures::returned, &SaveFigures::staged,      &SaveFigures::written,
    &SaveFigures::durable,  &SaveFigures::trainer_cpu, &SaveFigures::helper_cpu,
    &SaveFigures::planned,  &SaveFigures::captured,    &SaveFigures::copied,
    &SaveFigures::stalled,  &SaveFigures::drained,     &SaveFigures::fsync,
    &SaveFigures::commit,   &SaveFigures::walked};

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
    SaveMetric{"returned", "Until save returns", "ms", milliseconds<&SaveFigures::returned>},
    SaveMetric{"staged", "Until the state may change again, where that is later", "ms",
               milliseconds<&SaveFigures::staged>},
    SaveMetric{"first_returned", "A first save: until it returns", "ms",
               milliseconds<&SaveFigures::returned, true>},
    SaveMetric{"first_staged", "A first save: until the state may change again", "ms",
               milliseconds<&SaveFigures::staged, true>},
    SaveMetric{"durable", "From save to durable", "GB/s", rate<&SaveFigures::durable>},
    SaveMetric{"written", "From save to written, without fsync", "GB/s",
               rate<&SaveFigures::written>},
    SaveMetric{"first_durable", "A first save: to durable", "GB/s",
               rate<&SaveFigures::durable, true>},
    SaveMetric{"prepared", "Prepared before the first save", "ms", prepared},
    SaveMetric{"trainer_cpu", "Processor time of the trainer", "s/GB",
               per_gigabyte<&SaveFigures::trainer_cpu>},
    SaveMetric{"helper_cpu", "Processor time of its helpers", "s/GB",
               per_gigabyte<&SaveFigures::helper_cpu>},
    SaveMetric{"walked", "A walk over the tensors' metadata, alone", "ms",
               milliseconds<&SaveFigures::walked>},
    SaveMetric{"memory", "Memory of all processes beyond the state (PSS), highest seen", "MiB",
               mebibytes<&MemoryFigures::beyond_state>},
    SaveMetric{"beyond_ring", "The same beyond the ring", "MiB",
               mebibytes<&MemoryFigures::beyond_ring>},
    SaveMetric{"helper_pss", "The helper without the ring (PSS), highest seen", "MiB",
               mebibytes<&MemoryFigures::helper_pss>},
    SaveMetric{"page_tables", "Page tables of all processes beyond those before, highest seen",
               "MiB", mebibytes<&MemoryFigures::page_tables>},
    SaveMetric{"planned", "planned", "ms", milliseconds<&SaveFigures::planned>},
    SaveMetric{"captured", "captured, before save returns", "ms",
               milliseconds<&SaveFigures::captured>},
    SaveMetric{"copied", "staged, from the end of planning", "ms",
               milliseconds<&SaveFigures::copied>},
    SaveMetric{"stalled", "stalled on a full ring", "ms", milliseconds<&SaveFigures::stalled>},
    SaveMetric{"drained", "drained", "ms", milliseconds<&SaveFigures::drained>},
    SaveMetric{"fsync", "fsync", "ms", milliseconds<&SaveFigures::fsync>},
    SaveMetric{"commit", "commit", "ms", milliseconds<&SaveFigures::commit>},
};
/// The last ones are phases.
constexpr std::size_t kPhases = 7;

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

std::span<const SaveMetric> metrics() { return kMetrics; }
std::span<const SaveMetric> comparisons() { return metrics().first(kMetrics.size() - kPhases); }
std::span<const SaveMetric> phases() { return metrics().last(kPhases); }

}  // namespace bench
