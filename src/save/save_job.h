// One save, planned and ready to be staged: what the torch layer hands to both paths.
#pragma once

#include "plan/file_plan.h"
#include "stage/device_copies.h"
#include "stage/source.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::save {

/// What a device has to have done before its part of the state is copied.
struct DeviceState {
  int device;
  std::shared_ptr<stage::StreamPoint> ready_at;
};

struct SaveJob {
  std::string path;  ///< directory, as the user gave it
  plan::FilePlan plan;
  std::vector<stage::Source> sources;     ///< by Payload::source
  std::vector<DeviceState> devices = {};  ///< those that sources are on; one entry each
  std::shared_ptr<void> keep_alive = {};  ///< owns what `sources` point into; dropped once staged
  /// Called after the last copy, before the save is sealed; throws changed_while_staging. May be
  /// empty.
  std::function<void()> check_unchanged = {};
  /// The key of a source's first tensor, for messages. May be empty.
  std::function<std::string(std::uint32_t source)> name_of = {};
  double planned_seconds = 0;
};

}  // namespace ckptring::save
