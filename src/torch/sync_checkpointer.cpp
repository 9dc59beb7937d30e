#include "base/log.h"
#include "base/out_of_memory.h"
#include "base/rank.h"
#include "os/log_handler.h"
#include "os/owner_process.h"
#include "save/sync_save.h"
#include "store/file_sink.h"
#include "torch/plan_state.h"

#include <ckptring/torch/checkpointer.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <utility>

namespace ckptring {
namespace {

const RankInfo& checked(const RankInfo& rank, const CheckpointWriterConfig& config) {
  base::check_rank(rank);
  store::check_writer_config(config);
  return rank;
}

/// What could never work is the caller's to know at once; what the disk says is the future's.
void check_target(const std::string& path, const RankInfo& rank, std::uint64_t total_bytes) {
  try {
    (void)store::make_target(store::system_files(), path, rank, total_bytes);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::invalid_argument) throw;
  }
}

}  // namespace

struct SyncCheckpointer::Parts {
  Parts(const CheckpointWriterConfig& config, const RankInfo& rank_info, WriterSetup writer,
        bool throw_previous)
      : throw_previous_failure(throw_previous),
        rank(checked(rank_info, config)),
        save(config, rank_info, std::move(writer)),
        reader(rank_info) {}

  void check_usable(const std::string& operation) const {
    owner.require(operation);
    if (closed) {
      throw Error(ErrorCode::closed, operation, "", "the checkpointer was closed before");
    }
  }

  /// The last save's error, once, if nobody has fetched it.
  std::exception_ptr take_previous_failure() {
    std::exception_ptr error = std::exchange(last_error, nullptr);
    if (!error || last_written.fetched()) return nullptr;
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& failure) {
      base::LogContext{rank.global_rank, save.number()}.error(
          "an earlier save failed, and nobody asked for its result: {}", failure.what());
    }
    return error;
  }

  const bool throw_previous_failure;
  os::OwnerProcess owner;
  RankInfo rank;
  std::mutex saving;  ///< held during a save; guards all below
  save::SyncSave save;
  Future<SaveReport> last_written;
  std::exception_ptr last_error;
  std::atomic<bool> closed = false;
  CheckpointReader reader;
};

SyncCheckpointer::SyncCheckpointer(const CheckpointWriterConfig& config, RankInfo rank_info,
                                   WriterSetup writer, bool throw_previous_failure)
    : parts_(
          std::make_unique<Parts>(config, rank_info, std::move(writer), throw_previous_failure)) {}

SyncCheckpointer::~SyncCheckpointer() {
  if (parts_->owner.here()) {
    try {
      (void)parts_->take_previous_failure();
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): no memory to log it
    }
  } else {
    // A forked child must not run the destructors of the parent's writers.
    (void)parts_.release();  // NOLINT(bugprone-unused-return-value)
  }
}

SaveHandle SyncCheckpointer::save(const std::string& path, const StateDict& state,
                                  const SaveOptions& options) {
  Parts& parts = *parts_;
  parts.owner.require("save");
  const std::scoped_lock lock(parts.saving);
  parts.check_usable("save");
  if (parts.throw_previous_failure) {
    if (const std::exception_ptr failure = parts.take_previous_failure()) {
      std::rethrow_exception(failure);
    }
  }
  torch_state::check_save_path(path);
  save::SaveJob job =
      torch_state::plan_state(path, state, options, parts.rank, parts.save.devices());
  check_target(path, parts.rank, job.plan.total_bytes());

  SaveHandle handle;
  handle.previous_failure = parts.take_previous_failure();
  Promise<void> staged;
  Promise<SaveReport> written;
  handle.staged = staged.future();
  handle.written = written.future();
  try {
    written.set_value(parts.save.run(std::move(job)));
    staged.set_value();
  } catch (const std::exception&) {
    parts.last_error = base::as_error("save to", path, std::current_exception());
    written.set_error(parts.last_error);
    staged.set_error(parts.last_error);  // copying and writing end together here
  }
  parts.last_written = handle.written;
  return handle;
}

LoadResult SyncCheckpointer::load(const std::string& path, std::optional<StateDict> state,
                                  const LoadOptions& options) {
  parts_->check_usable("load");
  return parts_->reader.read(path, std::move(state), options);
}

void SyncCheckpointer::close() {
  parts_->owner.require("close");
  {
    const std::scoped_lock lock(parts_->saving);
    if (!parts_->closed.exchange(true)) parts_->save.close();
    (void)parts_->take_previous_failure();
  }
  os::wait_for_log_handler(os::kLogHandlerLimit);
}

std::unique_ptr<SyncCheckpointer> make_sync_checkpointer(const CheckpointerConfig& config,
                                                         std::optional<RankInfo> rank_info,
                                                         WriterSetup writer) {
  return std::make_unique<SyncCheckpointer>(config.writer_config,
                                            rank_info ? *rank_info : default_rank_info(),
                                            std::move(writer), config.throw_previous_failure);
}

}  // namespace ckptring
