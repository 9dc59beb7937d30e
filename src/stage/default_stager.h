// Copies a planned state into the ring, block by block, with a few threads.
#pragma once

#include "os/thread_team.h"
#include "plan/file_plan.h"
#include "ring/producer.h"
#include "stage/source.h"

#include <ckptring/config.h>

#include <mutex>
#include <span>

namespace ckptring::stage {

/// How staging went.
struct StageResult {
  bool complete = false;       ///< every block was published
  double stalled_seconds = 0;  ///< spent waiting for free slots
};

class DefaultStager {
 public:
  /// @throws Error invalid_argument
  explicit DefaultStager(const CheckpointStagerConfig& config);

  /// Claims, fills and publishes every block of the producer's open save. Ends early when the
  /// consumer gave the save up or `stop_fd` became readable; the caller then aborts the save.
  /// One call at a time.
  StageResult stage(ring::Producer& producer, const plan::FilePlan& plan,
                    std::span<const Source> sources, int stop_fd);

 private:
  os::ThreadTeam threads_;
};

}  // namespace ckptring::stage
