// The synchronous path: same plan, same block filling, same writer; no ring, no process.
#pragma once

#include "save/save_job.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>
#include <ckptring/writer.h>

namespace ckptring::save {

class SyncSave {
 public:
  /// @throws Error invalid_argument
  SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer);

  /// Stages, writes and commits in the calling thread; durable on return.
  /// @throws Error
  SaveReport run(SaveJob job);

 private:
  CheckpointWriterConfig config_;
  RankInfo rank_;
  WriterSetup writer_;
};

}  // namespace ckptring::save
