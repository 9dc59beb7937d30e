#include "base/out_of_memory.h"
#include "base/rank.h"
#include "os/log_handler.h"
#include "os/owner_process.h"
#include "save/async_save.h"
#include "store/file_sink.h"
#include "torch/plan_state.h"

#include <ckptring/torch/checkpointer.h>

#include <atomic>
#include <mutex>
#include <utility>

namespace ckptring {
namespace {

const RankInfo& checked(const RankInfo& rank, const CheckpointWriterConfig& config) {
  base::check_rank(rank);
  store::check_writer_config(config);
  return rank;
}

}  // namespace

struct AsyncCheckpointer::Parts {
  Parts(const CheckpointerConfig& config, const RankInfo& rank_info)
      : rank(checked(rank_info, config.writer_config)),
        reader(rank_info),
        save(config, rank_info) {}

  os::OwnerProcess owner;
  RankInfo rank;
  std::mutex saving;  ///< one save after the other, from the check until it is handed over
  std::atomic<bool> closed = false;
  CheckpointReader reader;
  save::AsyncSave save;
};

AsyncCheckpointer::AsyncCheckpointer(const CheckpointerConfig& config, RankInfo rank_info)
    : parts_(std::make_unique<Parts>(config, rank_info)) {}

AsyncCheckpointer::~AsyncCheckpointer() {
  // The threads that a forked child's copy would have to join do not exist there.
  if (!parts_->owner.here()) (void)parts_.release();  // NOLINT(bugprone-unused-return-value)
}

SaveHandle AsyncCheckpointer::save(const std::string& path, const StateDict& state,
                                   const SaveOptions& options) {
  parts_->owner.require("save");
  const std::scoped_lock lock(parts_->saving);
  parts_->save.check_usable();
  torch_state::check_save_path(path);
  save::SaveJob job =
      torch_state::plan_state(path, state, options, parts_->rank, parts_->save.devices());
  return base::or_out_of_memory("save to", path,
                                [&] { return parts_->save.submit(std::move(job)); });
}

LoadResult AsyncCheckpointer::load(const std::string& path, std::optional<StateDict> state,
                                   const LoadOptions& options) {
  parts_->owner.require("load");
  if (parts_->closed) {
    throw Error(ErrorCode::closed, "load", path, "the checkpointer was closed before");
  }
  return parts_->reader.read(path, std::move(state), options);
}

void AsyncCheckpointer::close() {
  parts_->owner.require("close");
  parts_->closed = true;
  parts_->save.close();
  os::wait_for_log_handler(os::kLogHandlerLimit);
}

PrepareReport AsyncCheckpointer::prepare(const StateDict& state) {
  parts_->owner.require("prepare");
  const save::SaveJob job =
      torch_state::plan_state("", state, {}, parts_->rank, parts_->save.devices());
  return base::or_out_of_memory("prepare", "", [&] { return parts_->save.prepare(job); });
}

void AsyncCheckpointer::ready() {
  parts_->owner.require("ready");
  parts_->save.ready();
}

void AsyncCheckpointer::wait_prefaulted() {
  parts_->owner.require("wait_prefaulted");
  parts_->save.wait_prefaulted();
}

std::vector<UnwrittenSave> AsyncCheckpointer::wait_written(
    std::chrono::steady_clock::time_point deadline) {
  parts_->owner.require("wait_written");
  return parts_->save.wait_written(deadline);
}

int AsyncCheckpointer::process_id() const {
  parts_->owner.require("process_id");
  return parts_->save.process_id();
}

std::unique_ptr<AsyncCheckpointer> make_async_checkpointer(const CheckpointerConfig& config,
                                                           std::optional<RankInfo> rank_info) {
  return std::make_unique<AsyncCheckpointer>(config, rank_info ? *rank_info : default_rank_info());
}

}  // namespace ckptring
