// The synchronous path: same plan, same block filling, same writer; no ring, no process.
#pragma once

#include "save/private_blocks.h"
#include "save/save_job.h"
#include "save/saved_files.h"
#include "stage/device_access.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>
#include <ckptring/writer.h>

#include <cstdint>
#include <memory>
#include <optional>

namespace ckptring::save {

class SyncSave {
 public:
  /// @throws Error invalid_argument
  SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer);
  /// Closes it.
  ~SyncSave();
  SyncSave(const SyncSave&) = delete;
  SyncSave& operator=(const SyncSave&) = delete;

  /// Where the job's DeviceState come from.
  [[nodiscard]] stage::DeviceAccess& devices() noexcept { return devices_; }

  /// Stages, writes and commits in the calling thread; durable on return.
  /// @throws Error
  SaveReport run(SaveJob job);

  /// Once nothing more will be saved: what the next save would have noticed goes to the log.
  void close() const noexcept;

  /// Which save the last one was, counted from 1. For the log.
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

 private:
  /// Memory that devices know is kept, so that it is made known to them once.
  struct PinnedBlocks {
    explicit PinnedBlocks(std::size_t count) : blocks(count) {}
    PrivateBlocks blocks;
    std::unique_ptr<stage::PinnedMemory> pinned;
  };
  PrivateBlocks& blocks_for(const SaveJob& job, std::optional<PrivateBlocks>& unpinned);

  CheckpointWriterConfig config_;
  RankInfo rank_;
  std::uint64_t number_ = 0;  ///< of the last save
  WriterSetup writer_;
  SavedFiles saved_;
  stage::DeviceAccess devices_;
  std::unique_ptr<PinnedBlocks> pinned_;
};

}  // namespace ckptring::save
