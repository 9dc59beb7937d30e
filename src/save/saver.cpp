#include "base/out_of_memory.h"
#include "base/rank.h"
#include "os/clock.h"
#include "os/log_handler.h"
#include "os/owner_process.h"
#include "plan/pt_layout.h"
#include "plan/utf8.h"
#include "save/async_save.h"
#include "save/save_ids.h"
#include "save/sync_save.h"
#include "store/file_sink.h"

#include <ckptring/saver.h>

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <variant>

namespace ckptring {
namespace {

using plan::Recording;

/// Memory that planning one save leaves to the next: faulting it in again takes a third of the
/// time.
struct PlanMemory {
  Recording::Values values;
  std::vector<std::byte> text;

  /// Nothing larger is kept of either.
  static constexpr std::size_t kMost = std::size_t{64} << 20;
};

RankInfo checked(const std::optional<RankInfo>& given, const CheckpointWriterConfig& config) {
  const RankInfo rank = given ? *given : default_rank_info();
  base::check_rank(rank);
  store::check_writer_config(config);
  return rank;
}

void check_path(const std::string& path) {
  const auto refuse = [&](const char* cause) {
    throw Error(ErrorCode::invalid_argument, "save to", path, cause);
  };
  if (path.empty()) refuse("the path is empty");
  if (path.find('\0') != std::string::npos) refuse("the path contains a NUL");
}

/// Metadata becomes JSON, which has no invalid UTF-8.
void check_metadata(const std::string& path, const Metadata& metadata) {
  const auto refuse = [&](const std::string& cause) {
    throw Error(ErrorCode::invalid_argument, "save metadata to", path, cause);
  };
  for (const auto& [key, value] : metadata) {
    if (!plan::is_utf8(key)) refuse("a key is not valid UTF-8");
    if (const auto* text = std::get_if<std::string>(&value); text && !plan::is_utf8(*text)) {
      refuse(fmt::format("the value of {} is not valid UTF-8", key));
    }
  }
}

/// Where there are none, the key of what is said to be on one is named, with the reason.
stage::DeviceCopies& copies_from(int device, const Recording& state, Recording::Node first,
                                 stage::DeviceAccess& devices) {
  const std::string key = state.path_of(first);
  stage::DeviceCopies* copies = nullptr;
  try {
    copies = devices.copies();
  } catch (const Error& failure) {
    throw Error(ErrorCode::device_failed, state.operation_on(key), state.path(),
                fmt::format("device cuda:{}: {}", device, failure.what()));
  }
  if (copies == nullptr) {
    state.refuse_at(first, fmt::format("a tensor on device cuda:{} cannot be stored: {}", device,
                                       devices.why_not()));
  }
  return *copies;
}

/// One mark for each device, however many tensors are there. Whoever has none on devices never
/// touches CUDA.
std::vector<save::DeviceState> mark_devices_of(const Recording& state,
                                               stage::DeviceAccess& devices) {
  std::map<int, Recording::Node> first_on;
  for (const Recording::Storage& storage : state.storages()) {
    if (storage.device != kHost) first_on.emplace(storage.device, storage.first);
  }
  std::vector<save::DeviceState> states;
  for (const auto& [device, first] : first_on) {
    stage::DeviceCopies& copies = copies_from(device, state, first, devices);
    try {
      save::DeviceState marked{device, nullptr, nullptr};
      const auto mark = [&, device = device](void* stream) {
        marked.stream = stream;
        marked.ready_at = copies.mark(device, stream);
      };
      if (state.produced_on) state.produced_on(device, mark);
      if (!marked.ready_at) mark(nullptr);
      states.push_back(std::move(marked));
    } catch (const Error& failure) {
      // CUDA's, or that a stream is being captured into a graph, which is the caller's to change.
      throw Error(failure.code(), state.operation_on(state.path_of(first)), state.path(),
                  failure.what());
    }
  }
  return states;
}

std::vector<stage::Source> sources_of(const Recording& state) {
  std::vector<stage::Source> sources;
  sources.reserve(state.storages().size());
  for (const Recording::Storage& storage : state.storages()) {
    sources.push_back({static_cast<const std::byte*>(storage.data), storage.bytes, storage.device,
                       storage.is_volatile});
  }
  return sources;
}

}  // namespace

struct Saver::Parts {
  Parts(const RankInfo& rank_info, std::unique_ptr<save::Engine> way)
      : rank(rank_info), engine(std::move(way)), ids(rank_info) {}

  /// Records the state and lays out its file.
  save::SaveJob plan(const std::string& path, const Record& record, const SaveOptions& options,
                     PlanMemory* kept) const;

  [[nodiscard]] plan::FilePlan lay_out(const std::string& path, const Recording& recording,
                                       const SaveOptions& options,
                                       std::vector<std::byte>* scratch) const;

  const os::OwnerProcess owner;
  const RankInfo rank;
  const std::unique_ptr<save::Engine> engine;
  save::SaveIds ids;  ///< guarded by `saving`
  std::mutex saving;  ///< one save after the other, from the check until it is handed over
  PlanMemory memory;  ///< guarded by `saving`
};

plan::FilePlan Saver::Parts::lay_out(const std::string& path, const Recording& recording,
                                     const SaveOptions& options,
                                     std::vector<std::byte>* scratch) const {
  try {
    return plan::lay_out_pt(recording, {rank, options.step, options.metadata, options.save_id},
                            scratch);
  } catch (const Error& error) {
    if (!error.path().empty() || path.empty()) throw;
    // What no single key is to blame for.
    throw Error(error.code(), "save to", path, error.cause());
  }
}

save::SaveJob Saver::Parts::plan(const std::string& path, const Record& record,
                                 const SaveOptions& options, PlanMemory* kept) const {
  const std::uint64_t start = os::monotonic_ns();
  check_metadata(path, options.metadata);
  const auto state = std::make_shared<StateRecorder>(path.empty() ? "prepare" : "save", path);
  Recording& recording = state->recording();
  if (kept != nullptr) recording.record_into(std::move(kept->values));
  record(*state);
  plan::FilePlan file = lay_out(path, recording, options, kept != nullptr ? &kept->text : nullptr);
  Recording::Values values = recording.forget_values();
  if (kept != nullptr) {
    if (values.bytes() <= PlanMemory::kMost) kept->values = std::move(values);
    if (kept->text.capacity() > PlanMemory::kMost) kept->text = {};
  }
  std::vector<save::DeviceState> devices = mark_devices_of(recording, engine->devices());
  save::SaveJob job{
      .path = path,
      .plan = std::move(file),
      .sources = sources_of(recording),
      .devices = std::move(devices),
      .keep_alive = std::make_shared<std::vector<std::shared_ptr<void>>>(
          std::exchange(recording.kept_alive, {})),
      .name_of = [state](std::uint32_t source) { return state->path_of_storage(source); },
  };
  if (recording.check_unchanged) {
    job.check_unchanged = [state](int place, const save::Captured& captured) {
      state->recording().check_unchanged(*state, place, captured.sources);
    };
  }
  job.file_name = options.file_name;
  job.planned_seconds = os::seconds_since(start);
  return job;
}

Saver::Saver(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

std::unique_ptr<Saver> Saver::synchronous(const CheckpointerConfig& config,
                                          std::optional<RankInfo> rank_info, WriterSetup writer) {
  const RankInfo rank = checked(rank_info, config.writer_config);
  return std::unique_ptr<Saver>(new Saver(std::make_unique<Parts>(
      rank, std::make_unique<save::SyncSave>(config.writer_config, rank, std::move(writer),
                                             config.throw_previous_failure))));
}

std::unique_ptr<Saver> Saver::asynchronous(const CheckpointerConfig& config,
                                           std::optional<RankInfo> rank_info) {
  const RankInfo rank = checked(rank_info, config.writer_config);
  return std::unique_ptr<Saver>(
      new Saver(std::make_unique<Parts>(rank, std::make_unique<save::AsyncSave>(config, rank))));
}

Saver::~Saver() {
  // The threads that a forked child's copy would have to join do not exist there, and memory,
  // descriptors and writers are the parent's.
  if (!parts_->owner.here()) (void)parts_.release();  // NOLINT(bugprone-unused-return-value)
}

SaveHandle Saver::save(const std::string& path, const Record& record, const SaveOptions& options) {
  parts_->owner.require("save");
  const std::scoped_lock order(parts_->saving);
  SaveOptions settled;
  base::or_out_of_memory("save to", path, [&] {
    // Also where it is not used, or nothing is saved, so that ranks count alike.
    const std::optional<SaveId> next = parts_->ids.next(path, options.step);
    settled = options;
    if (!settled.save_id) settled.save_id = next;
  });
  parts_->engine->check_usable();
  check_path(path);
  return base::or_out_of_memory("save to", path, [&] {
    return parts_->engine->submit(parts_->plan(path, record, settled, &parts_->memory));
  });
}

PrepareReport Saver::prepare(const Record& record) {
  parts_->owner.require("prepare");
  return base::or_out_of_memory("prepare", "", [&] {
    return parts_->engine->prepare(parts_->plan("", record, {}, nullptr));
  });
}

void Saver::ready() {
  parts_->owner.require("ready");
  parts_->engine->ready();
}

void Saver::wait_prefaulted() {
  parts_->owner.require("wait_prefaulted");
  parts_->engine->wait_prefaulted();
}

std::vector<UnwrittenSave> Saver::wait_written(std::chrono::steady_clock::time_point deadline) {
  parts_->owner.require("wait_written");
  return parts_->engine->wait_written(deadline);
}

void Saver::close() {
  parts_->owner.require("close");
  parts_->engine->close();
  os::wait_for_log_handler(os::kLogHandlerLimit);
}

void Saver::require_open(const std::string& operation, const std::string& path) const {
  parts_->owner.require(operation);
  if (parts_->engine->is_closed()) {
    throw Error(ErrorCode::closed, operation, path, "the checkpointer was closed before");
  }
}

const RankInfo& Saver::rank_info() const noexcept { return parts_->rank; }

int Saver::process_id() const {
  parts_->owner.require("process_id");
  return parts_->engine->process_id();
}

}  // namespace ckptring
