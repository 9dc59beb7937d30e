#include "save/follow_streams.h"

#include <ckptring/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace ckptring::save {

void follow_streams(const SaveJob& job, stage::DeviceCopies& copies) {
  for (const DeviceState& state : job.devices) {
    try {
      copies.to_host(state.device).copy_after(*state.ready_at);
    } catch (const Error& failure) {
      const auto first = std::ranges::find(job.sources, state.device, &stage::Source::place);
      if (first == job.sources.end() || !job.name_of) throw;
      const auto index = static_cast<std::uint32_t>(first - job.sources.begin());
      throw Error(failure.code(), fmt::format("stage key {}", job.name_of(index)), failure.path(),
                  failure.what());
    }
  }
}

}  // namespace ckptring::save
