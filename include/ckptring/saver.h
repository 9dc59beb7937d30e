// Saving without a tensor library: what the checkpointers of torch/checkpointer.h stand on.
// Read first: state_recorder.h, which shows a save.
#pragma once

#include <ckptring/config.h>
#include <ckptring/error.h>
#include <ckptring/export.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_handle.h>
#include <ckptring/save_options.h>
#include <ckptring/save_report.h>
#include <ckptring/state_recorder.h>
#include <ckptring/writer.h>

#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace ckptring {

/// One way to save, synchronous or asynchronous. All calls are thread-safe; saves are serialised.
/// In a forked child every call throws wrong_process, and the destructor does nothing.
class CKPTRING_API Saver {
 public:
  /// Tells the recorder the state that is to be saved. What it throws leaves the call that it was
  /// given to, and nothing was begun then.
  using Record = std::function<void(StateRecorder& state)>;

  /// Plans, writes and commits in the calling thread; the futures of its saves are ready.
  /// @param rank_info  default: what the launcher's environment says
  /// @param writer     hooks or a custom writer, called in this process
  /// @throws Error invalid_argument
  static std::unique_ptr<Saver> synchronous(const CheckpointerConfig& config = {},
                                            std::optional<RankInfo> rank_info = {},
                                            WriterSetup writer = {});
  /// Stages into the shared-memory ring; a checkpoint process, started here without waiting for
  /// it, writes and commits. Reads the environment, here and never again.
  /// @throws Error invalid_argument; out_of_memory; permission or io if the system refuses what a
  ///         ring is made of
  static std::unique_ptr<Saver> asynchronous(const CheckpointerConfig& config = {},
                                             std::optional<RankInfo> rank_info = {});
  /// Waits until what was begun is staged, at most `subprocess_shutdown_timeout_secs` without
  /// progress, and never for the disk beyond that, but for two seconds in which it looks whether
  /// another process has replaced its files.
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  /// Writes the state to `path/checkpoint_{rank}.pt`, replacing what is there in one step. `path`
  /// and missing ancestors are made. Throws only for bad arguments, a state that cannot be stored
  /// (unsupported_value, names the key), a device that refuses to say how far it is (device_failed,
  /// likewise), a stream of one that is being captured into a CUDA graph (invalid_argument), use
  /// after close, and with `throw_previous_failure` an earlier save's failure; everything later is
  /// carried by the futures.
  SaveHandle save(const std::string& path, const Record& record, const SaveOptions& options = {});
  /// The same with anything that can be called so. It is not copied: what it tells of itself stays
  /// where it is.
  template <std::invocable<StateRecorder&> Recorder>
  requires(!std::same_as<std::remove_cvref_t<Recorder>, Record>) SaveHandle
      save(const std::string& path, Recorder&& record, const SaveOptions& options = {}) {
    const Record by_reference(std::ref(record));
    return save(path, by_reference, options);
  }

  /// Makes the automatic ring as large as this state needs, now, and starts to populate it; makes
  /// the memory for what each save captures, and tells what that is. Copies nothing of the state.
  /// Of a synchronous one: nothing.
  PrepareReport prepare(const Record& record);
  template <std::invocable<StateRecorder&> Recorder>
  requires(!std::same_as<std::remove_cvref_t<Recorder>, Record>) PrepareReport
      prepare(Recorder&& record) {
    const Record by_reference(std::ref(record));
    return prepare(by_reference);
  }

  /// Waits until the checkpoint process, if there is one, is ready (at most
  /// `subprocess_init_timeout_secs`).
  /// @throws Error process_failed with the cause
  void ready();
  /// Waits until the ring is populated. For benchmarks.
  void wait_prefaulted();

  /// Waits until every save begun so far is durable or failed, or until `deadline`. Returns the
  /// ones that are not durable: those still under way, and all that failed since the last call
  /// (of more than 1,000 the newest), whoever fetched their errors meanwhile.
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline);

  /// Finishes what was begun, then refuses further use. Idempotent. Where there is a log handler,
  /// gives it a second to handle what was logged.
  void close();

  /// For what else its owner does.
  /// @throws Error wrong_process; closed
  void require_open(const std::string& operation, const std::string& path = {}) const;

  [[nodiscard]] const RankInfo& rank_info() const noexcept;
  /// The checkpoint process's id for operators and tests; 0 while none runs.
  [[nodiscard]] int process_id() const;

 private:
  struct Parts;
  explicit Saver(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace ckptring
