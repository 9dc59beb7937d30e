#include "base/rank.h"
#include "plan/pt_archive.h"
#include "store/file_source.h"
#include "torch/build_value.h"
#include "torch/fill_plan.h"
#include "torch/fill_records.h"
#include "torch/libtorch_error.h"
#include "torch/match_state.h"

#include <ckptring/error.h>
#include <ckptring/torch/reader.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <utility>
#include <variant>
#include <vector>

namespace ckptring {
namespace {

using torch_state::FillPlan;
using torch_state::RecordFills;

void check_world_size(const CheckpointInfo& info, const RankInfo& rank, const std::string& file) {
  const bool ours = info.format_version > 0;
  if (!ours || info.world_size == rank.global_world_size) return;
  throw Error(ErrorCode::mismatch, "load", file,
              fmt::format("it was written by a job of {} ranks, this one has {} (see "
                          "LoadOptions::allow_other_world_size)",
                          info.world_size, rank.global_world_size));
}

LoadResult read_file(const std::string& path, const store::FileSource& source,
                     const std::optional<StateDict>& state, const LoadOptions& options,
                     const RankInfo& rank) {
  const std::string& file = source.path();
  const plan::PtArchive archive = plan::PtArchive::open(source);
  if (options.verify_checksums || options.verify_first) {
    archive.require_checksums(
        "load", "; LoadOptions::verify_checksums = false loads it without comparing any");
  }
  if (!options.allow_other_world_size) check_world_size(archive.info(), rank, file);
  const plan::Document document = archive.read_value(source);
  const plan::Value root = document.root();
  const auto* const dict = std::get_if<plan::Dict>(&root.data);
  if (dict == nullptr) {
    throw Error(ErrorCode::unsupported_value, "load", file,
                "the file does not hold a dict at its top level");
  }

  FillPlan fill_plan(archive, file, options.default_map_location.value_or(c10::Device(c10::kCPU)));
  const StateDict result = state ? *state : make_state_dict();
  if (state) {
    torch_state::match_state(result, document, *dict, fill_plan);
  } else {
    torch_state::ValueBuilder(document, fill_plan).fill(result, *dict, torch_state::KeyTree::kRoot);
  }
  if (options.strict && !fill_plan.missing_keys.empty()) {
    throw Error(ErrorCode::missing_key, "load", file,
                fmt::format("keys that the file does not have: {}",
                            fmt::join(fill_plan.missing_keys, ", ")));
  }

  // What is filled cannot be taken back: all that takes memory comes before.
  LoadResult loaded{result, std::move(fill_plan.missing_keys), archive.info()};
  loaded.info.path = path;
  fill_plan.make_room_for_changes();
  std::vector<RecordFills> records = fill_plan.take_records();
  fill_records(source, fill_plan, records, options, {rank.global_rank});
  for (const torch_state::Change& change : fill_plan.changes) change.apply();
  return loaded;
}

}  // namespace

CheckpointReader::CheckpointReader(RankInfo rank_info) : rank_info_(rank_info) {
  base::check_rank(rank_info_);
}

LoadResult CheckpointReader::read(const std::string& path, std::optional<StateDict> state,
                                  const LoadOptions& options) const {
  return torch_state::in_own_words(ErrorCode::internal, "load", path, [&] {
    const auto source = store::open_checkpoint(path, rank_info_.global_rank);
    return torch_state::in_own_words(ErrorCode::internal, "load", source->path(), [&] {
      return read_file(path, *source, state, options, rank_info_);
    });
  });
}

}  // namespace ckptring
