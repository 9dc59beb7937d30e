#include "load/run_figures.h"

namespace bench {
namespace {

template <LoadKind kind, Cache cache, auto figure>
std::optional<double> get(const LoadRun& run, double /*gigabytes*/) {
  return run.of(kind, cache).*figure;
}

template <LoadKind kind, Cache cache>
constexpr auto rate = get<kind, cache, &LoadFigures::rate>;
template <LoadKind kind, Cache cache>
constexpr auto cpu = get<kind, cache, &LoadFigures::cpu>;

using enum LoadKind;
using enum Cache;

constexpr std::array kMetrics{
    LoadMetric{"in_place_warm", "Into a state that is there, warm page cache", "GB/s",
               rate<in_place, warm>},
    LoadMetric{"in_place_cold", "Into a state that is there, cold page cache", "GB/s",
               rate<in_place, cold>},
    LoadMetric{"full_warm", "A new state, warm page cache", "GB/s", rate<full, warm>},
    LoadMetric{"full_cold", "A new state, cold page cache", "GB/s", rate<full, cold>},
    LoadMetric{"partial_warm", "Every tenth tensor, warm page cache", "GB/s", rate<partial, warm>},
    LoadMetric{"partial_cold", "Every tenth tensor, cold page cache", "GB/s", rate<partial, cold>},
    LoadMetric{"in_place_warm_cpu", "Processor time: into a state that is there, warm", "s/GB",
               cpu<in_place, warm>},
    LoadMetric{"in_place_cold_cpu", "Processor time: into a state that is there, cold", "s/GB",
               cpu<in_place, cold>},
    LoadMetric{"full_warm_cpu", "Processor time: a new state, warm", "s/GB", cpu<full, warm>},
    LoadMetric{"full_cold_cpu", "Processor time: a new state, cold", "s/GB", cpu<full, cold>},
    LoadMetric{"partial_warm_cpu", "Processor time: every tenth tensor, warm", "s/GB",
               cpu<partial, warm>},
    LoadMetric{"partial_cold_cpu", "Processor time: every tenth tensor, cold", "s/GB",
               cpu<partial, cold>},
};

}  // namespace

std::string name_of(LoadKind kind) {
  return kind == full ? "full" : kind == in_place ? "in_place" : "partial";
}

std::span<const LoadMetric> load_metrics() { return kMetrics; }

}  // namespace bench
