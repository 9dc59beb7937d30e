// Saving and loading: start here. Read next: state_dict.h, config.h, training_state.h.
//
//   auto checkpointer = ckptring::make_async_checkpointer();
//   auto save = checkpointer->save("run/step_100", state, {.step = 100});
//   ...                      // forward and backward: see SaveHandle for what may change meanwhile
//   save.staged.wait();      // the state may change again
//   save.written.get();      // durable and visible; throws what went wrong
#pragma once

#include <ckptring/checkpoints.h>
#include <ckptring/config.h>
#include <ckptring/error.h>
#include <ckptring/export.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_handle.h>
#include <ckptring/save_options.h>
#include <ckptring/save_report.h>
#include <ckptring/torch/fence.h>
#include <ckptring/torch/reader.h>
#include <ckptring/torch/state_dict.h>
#include <ckptring/writer.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ckptring {

/// One way to save, and the way to load. All calls are thread-safe; saves are serialised. In a
/// forked child every call throws wrong_process and the destructor does nothing.
class CKPTRING_API Checkpointer {
 public:
  virtual ~Checkpointer() = default;

  /// Writes `state` to `path/checkpoint_{rank}.pt`, replacing what is there in one step. Of tensors
  /// on CUDA devices, what the calling thread's current streams have been given so far.
  /// `path` and missing ancestors are made. Throws only for bad arguments, a state that cannot
  /// be stored (unsupported_value, names the key), a CUDA device that refuses to say how far it is
  /// (device_failed, names the key), a current stream of one that is being captured into a CUDA
  /// graph (invalid_argument, likewise), or use after close; everything later is carried by the
  /// futures. Tensors are kept alive until staged.
  virtual SaveHandle save(const std::string& path, const StateDict& state,
                          const SaveOptions& options = {}) = 0;

  /// See CheckpointReader::read. Does not wait for saves.
  virtual LoadResult load(const std::string& path, std::optional<StateDict> state = {},
                          const LoadOptions& options = {}) = 0;

  /// Finishes what was begun, then refuses further use. Idempotent. Where there is a log handler,
  /// gives it a second to handle what was logged (see log.h).
  virtual void close() = 0;
};

/// Plans, writes and commits in the calling thread. Both futures are ready on return.
class CKPTRING_API SyncCheckpointer final : public Checkpointer {
 public:
  /// @param throw_previous_failure as in CheckpointerConfig
  SyncCheckpointer(const CheckpointWriterConfig& config, RankInfo rank_info,
                   WriterSetup writer = {}, bool throw_previous_failure = false);
  ~SyncCheckpointer() override;
  SaveHandle save(const std::string& path, const StateDict& state,
                  const SaveOptions& options = {}) override;
  LoadResult load(const std::string& path, std::optional<StateDict> state = {},
                  const LoadOptions& options = {}) override;
  void close() override;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// Stages into the shared-memory ring; a checkpoint process writes and commits.
class CKPTRING_API AsyncCheckpointer final : public Checkpointer {
 public:
  /// Starts the checkpoint process without waiting for it: whether that works shows in ready() and
  /// in the saves. Reads the environment, here and never again.
  /// @throws Error invalid_argument; out_of_memory (a given ring that does not fit, or no more
  ///         threads); permission or io if the system refuses what a ring is made of (shared
  ///         memory, an eventfd, a pidfd), for example in a sandbox
  AsyncCheckpointer(const CheckpointerConfig& config, RankInfo rank_info);
  /// Waits until what was begun is staged, at most `subprocess_shutdown_timeout_secs` without
  /// progress, and never for the disk beyond that, but for two seconds in which it looks whether
  /// another process has replaced its files.
  ~AsyncCheckpointer() override;

  SaveHandle save(const std::string& path, const StateDict& state,
                  const SaveOptions& options = {}) override;
  LoadResult load(const std::string& path, std::optional<StateDict> state = {},
                  const LoadOptions& options = {}) override;
  void close() override;

  /// Makes the automatic ring as large as this state needs, now, and starts to populate it, so
  /// that the first save is as quick as any; with tensors on devices, to make it known to CUDA too.
  /// Makes the memory for what each save captures, and tells what that is. Does not copy anything.
  PrepareReport prepare(const StateDict& state);

  /// Waits until the checkpoint process is ready (at most `subprocess_init_timeout_secs`).
  /// @throws Error process_failed with the cause
  void ready();

  /// Waits until the ring is populated. For benchmarks.
  void wait_prefaulted();

  /// Waits until every save begun so far is durable or failed, or until `deadline`. Returns the
  /// ones that are not durable: those still under way, and all that failed since the last call
  /// (of more than 1,000 the newest), whoever fetched their errors meanwhile. Empty means that
  /// nothing is missing. For preemption handlers.
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline);

  /// The checkpoint process's id for operators and tests; 0 while none runs, as after close().
  [[nodiscard]] int process_id() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// `writer`: hooks or a custom writer, called in this process.
CKPTRING_API std::unique_ptr<SyncCheckpointer> make_sync_checkpointer(
    const CheckpointerConfig& config = {}, std::optional<RankInfo> rank_info = {},
    WriterSetup writer = {});

/// Hooks and custom writers run in the checkpoint process: see drain.h.
CKPTRING_API std::unique_ptr<AsyncCheckpointer> make_async_checkpointer(
    const CheckpointerConfig& config = {}, std::optional<RankInfo> rank_info = {});

}  // namespace ckptring
