// One save, planned and ready to be staged: what the torch layer hands to both paths.
#pragma once

#include "plan/file_plan.h"
#include "stage/device_copies.h"
#include "stage/source.h"

#include <ckptring/future.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::save {

/// What a device has to have done before its part of the state is copied.
struct DeviceState {
  int device;
  void* stream;  ///< native: what the state is produced on, as far as this save is concerned
  std::shared_ptr<stage::StreamPoint> ready_at;
};

/// What of a state was copied before `save` returned.
struct Captured {
  std::vector<bool> sources;  ///< by source; empty: none
  std::uint64_t storages = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;                         ///< of the thread that called `save`
  std::vector<std::shared_ptr<void>> memory;  ///< holds the copies
  std::vector<Future<void>> on_devices;       ///< ready when devices have made theirs

  [[nodiscard]] bool has(std::uint32_t source) const {
    return source < sources.size() && sources[source];
  }
};

struct SaveJob {
  std::string path;  ///< directory, as the user gave it
  plan::FilePlan plan;
  std::vector<stage::Source> sources;     ///< by Payload::source
  std::vector<DeviceState> devices = {};  ///< those that sources are on; one entry each
  std::shared_ptr<void> keep_alive = {};  ///< owns what `sources` point into; dropped once staged
  /// Looks whether what lies at a place, and was not captured, is as it was when it was planned.
  /// Throws changed_while_staging. Called as long as `keep_alive` is there. May be empty.
  std::function<void(int place, const Captured& captured)> check_unchanged = {};
  /// The key of a source's first tensor, for messages. May be empty.
  std::function<std::string(std::uint32_t source)> name_of = {};
  double planned_seconds = 0;
  Captured captured = {};
  std::string file_name = {};  ///< in `path`; empty: the rank's

  /// What messages call a source.
  [[nodiscard]] std::string name(std::uint32_t source) const {
    return name_of ? name_of(source) : "of storage " + std::to_string(source);
  }
};

}  // namespace ckptring::save
