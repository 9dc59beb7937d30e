#include "torch/record_state.h"

#include <ckptring/saver.h>
#include <ckptring/torch/checkpointer.h>

#include <utility>

namespace ckptring {
namespace {

CheckpointerConfig config_of(const CheckpointWriterConfig& writer_config,
                             bool throw_previous_failure) {
  CheckpointerConfig config;
  config.writer_config = writer_config;
  config.throw_previous_failure = throw_previous_failure;
  return config;
}

}  // namespace

struct SyncCheckpointer::Parts {
  Parts(const CheckpointerConfig& config, const RankInfo& rank_info, WriterSetup writer)
      : saver(Saver::synchronous(config, rank_info, std::move(writer))), reader(rank_info) {}

  const std::unique_ptr<Saver> saver;
  const CheckpointReader reader;
};

SyncCheckpointer::SyncCheckpointer(const CheckpointWriterConfig& config, RankInfo rank_info,
                                   WriterSetup writer, bool throw_previous_failure)
    : parts_(std::make_unique<Parts>(config_of(config, throw_previous_failure), rank_info,
                                     std::move(writer))) {}

SyncCheckpointer::~SyncCheckpointer() = default;

SaveHandle SyncCheckpointer::save(const std::string& path, const StateDict& state,
                                  const SaveOptions& options) {
  return parts_->saver->save(path, torch_state::recorder_of(state, path), options);
}

LoadResult SyncCheckpointer::load(const std::string& path, std::optional<StateDict> state,
                                  const LoadOptions& options) {
  parts_->saver->require_open("load", path);
  return parts_->reader.read(path, std::move(state), options);
}

void SyncCheckpointer::close() { parts_->saver->close(); }

std::unique_ptr<SyncCheckpointer> make_sync_checkpointer(const CheckpointerConfig& config,
                                                         std::optional<RankInfo> rank_info,
                                                         WriterSetup writer) {
  return std::make_unique<SyncCheckpointer>(config.writer_config,
                                            rank_info ? *rank_info : default_rank_info(),
                                            std::move(writer), config.throw_previous_failure);
}

}  // namespace ckptring
