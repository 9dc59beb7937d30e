// One save, planned and ready to be staged: what the torch layer hands to both paths.
#pragma once

#include "plan/file_plan.h"
#include "stage/source.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::save {

struct SaveJob {
  std::string path;  ///< directory, as the user gave it
  plan::FilePlan plan;
  std::vector<stage::Source> sources;  ///< by Payload::source
  std::shared_ptr<void> keep_alive;    ///< owns what `sources` point into; dropped once staged
  /// Called after the last copy, before the save is sealed; throws changed_while_staging. May be
  /// empty.
  std::function<void()> check_unchanged;
  double planned_seconds = 0;
};

}  // namespace ckptring::save
