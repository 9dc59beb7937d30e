// The synchronous path: same plan, same block filling, same writer; no ring, no process.
#pragma once

#include "save/earlier_failures.h"
#include "save/engine.h"
#include "save/private_blocks.h"
#include "save/save_job.h"
#include "save/saved_files.h"
#include "stage/device_access.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>
#include <ckptring/writer.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace ckptring::save {

class SyncSave final : public Engine {
 public:
  /// @throws Error invalid_argument
  SyncSave(const CheckpointWriterConfig& config, RankInfo rank, WriterSetup writer,
           bool throw_previous_failure = false);
  /// Closes it.
  ~SyncSave() override;

  void check_usable() override;
  /// Stages, writes and commits in the calling thread: the futures are ready.
  SaveHandle submit(SaveJob job) override;
  /// Nothing is to be made ready.
  PrepareReport prepare(const SaveJob& job) override;
  void ready() override {}
  void wait_prefaulted() override {}
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline) override;
  /// What the next save would have noticed goes to the log.
  void close() override;
  [[nodiscard]] bool is_closed() const override { return closed_; }
  [[nodiscard]] int process_id() const override { return 0; }
  [[nodiscard]] stage::DeviceAccess& devices() override { return devices_; }

  /// `submit` without the futures; durable on return.
  /// @throws Error
  SaveReport run(SaveJob job);

 private:
  /// Memory that devices know is kept, so that it is made known to them once.
  struct PinnedBlocks {
    explicit PinnedBlocks(std::size_t count) : blocks(count) {}
    PrivateBlocks blocks;
    std::unique_ptr<stage::PinnedMemory> pinned;
  };
  SaveReport run_locked(SaveJob job);
  PrivateBlocks& blocks_for(const SaveJob& job, std::optional<PrivateBlocks>& unpinned);

  const CheckpointWriterConfig config_;
  const RankInfo rank_;
  const bool throw_previous_failure_;
  std::atomic<bool> closed_ = false;
  EarlierFailures failures_;

  std::mutex running_;        ///< held during a save; guards what follows
  std::uint64_t number_ = 0;  ///< of the last save
  WriterSetup writer_;
  SavedFiles saved_;
  stage::DeviceAccess devices_;
  std::unique_ptr<PinnedBlocks> pinned_;
};

}  // namespace ckptring::save
