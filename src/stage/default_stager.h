// Copies a planned state into the ring, block by block, with a few threads and, where a part of it
// is on devices, with their copy engines.
#pragma once

#include "os/thread_team.h"
#include "plan/file_plan.h"
#include "ring/producer.h"
#include "stage/device_copies.h"
#include "stage/source.h"

#include <ckptring/config.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace ckptring::stage {

/// What is to be staged. Everything outlives the call.
struct StageRequest {
  const plan::FilePlan& plan;
  std::span<const Source> sources;  ///< by Payload::source
  DeviceCopies* devices = nullptr;  ///< not null if a source is on one
  /// For messages. May be empty.
  std::function<std::string(std::uint32_t source)> name_of = {};
  /// Called once, by any thread, when no copy from a device will be begun any more. May be empty.
  std::function<void()> enqueued = {};
  /// Called for each block when it is full, by any thread, before anybody else sees it; what it
  /// throws ends the staging. May be empty.
  std::function<void(std::uint64_t file_offset, std::span<const std::byte> block)> check_full = {};
};

/// How staging went.
struct StageResult {
  bool complete = false;       ///< every block was published
  double stalled_seconds = 0;  ///< spent waiting for free slots
};

class DefaultStager {
 public:
  /// @throws Error invalid_argument; out_of_memory if the system allows no more threads
  explicit DefaultStager(const CheckpointStagerConfig& config);

  /// Claims, fills and publishes every block of the producer's open save. Ends early when a copy
  /// failed, when the consumer gave the save up, or when `stop_fd` became readable; the caller then
  /// aborts the save. Either way every copy and every claim has ended. One call at a time.
  /// @throws Error device_failed naming the tensors, io
  StageResult stage(ring::Producer& producer, const StageRequest& request, int stop_fd);

 private:
  os::ThreadTeam threads_;
};

}  // namespace ckptring::stage
