#include "torch/record_state.h"

#include <ckptring/saver.h>
#include <ckptring/torch/checkpointer.h>

#include <utility>

namespace ckptring {

struct AsyncCheckpointer::Parts {
  Parts(const CheckpointerConfig& config, const RankInfo& rank_info)
      : saver(Saver::asynchronous(config, rank_info)), reader(rank_info) {}

  const std::unique_ptr<Saver> saver;
  const CheckpointReader reader;
};

AsyncCheckpointer::AsyncCheckpointer(const CheckpointerConfig& config, RankInfo rank_info)
    : parts_(std::make_unique<Parts>(config, rank_info)) {}

AsyncCheckpointer::~AsyncCheckpointer() = default;

SaveHandle AsyncCheckpointer::save(const std::string& path, const StateDict& state,
                                   const SaveOptions& options) {
  return parts_->saver->save(path, torch_state::recorder_of(state, path), options);
}

LoadResult AsyncCheckpointer::load(const std::string& path, std::optional<StateDict> state,
                                   const LoadOptions& options) {
  parts_->saver->require_open("load", path);
  return parts_->reader.read(path, std::move(state), options);
}

void AsyncCheckpointer::close() { parts_->saver->close(); }

PrepareReport AsyncCheckpointer::prepare(const StateDict& state) {
  return parts_->saver->prepare(torch_state::recorder_of(state, ""));
}

void AsyncCheckpointer::ready() { parts_->saver->ready(); }

void AsyncCheckpointer::wait_prefaulted() { parts_->saver->wait_prefaulted(); }

std::vector<UnwrittenSave> AsyncCheckpointer::wait_written(
    std::chrono::steady_clock::time_point deadline) {
  return parts_->saver->wait_written(deadline);
}

int AsyncCheckpointer::process_id() const { return parts_->saver->process_id(); }

std::unique_ptr<AsyncCheckpointer> make_async_checkpointer(const CheckpointerConfig& config,
                                                           std::optional<RankInfo> rank_info) {
  return std::make_unique<AsyncCheckpointer>(config, rank_info ? *rank_info : default_rank_info());
}

}  // namespace ckptring
