// The synchronous path: same plan, same block filling, same writer; no ring, no process.
#pragma once

#include "save/save_job.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>
#include <ckptring/writer.h>

#include <cstdint>

namespace ckptring::save {

class SyncSave {
 public:
  /// @throws Error invalid_argument
  SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer);

  /// Stages, writes and commits in the calling thread; durable on return.
  /// @throws Error
  SaveReport run(SaveJob job);

  /// Which save the last one was, counted from 1. For the log.
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

 private:
  CheckpointWriterConfig config_;
  RankInfo rank_;
  std::uint64_t number_ = 0;  ///< of the last save
  WriterSetup writer_;
};

}  // namespace ckptring::save
