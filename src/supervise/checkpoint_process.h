// Starts the helper program, watches it, restarts it, and tells what became of each save.
#pragma once

#include "base/log.h"
#include "os/credentials.h"
#include "os/file_identity.h"
#include "os/own_thread.h"
#include "os/uninherited_fd.h"
#include "ring/bell_set.h"
#include "ring/producer.h"
#include "ring/segment.h"
#include "supervise/drain_program.h"
#include "supervise/log_reader.h"

#include <ckptring/config.h>
#include <ckptring/error.h>
#include <ckptring/rank_info.h>
#include <ckptring/save_report.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace ckptring::supervise {

/// How a save ended. With an error, `report` holds what is known.
struct SaveOutcome {
  SaveReport report;                ///< path, planning and staging are the caller's to fill in
  std::exception_ptr error;         ///< null: committed
  os::FileIdentity file{};          ///< then what has the final name; none with a custom writer
  os::FileIdentity renamed_over{};  ///< and the regular file that had it before
};

/// One ring's helper process, over all of its restarts, and the thread that watches it.
/// Thread-safe, except for construction and destruction.
class CheckpointProcess {
 public:
  /// Called from the watching thread, once per expected save.
  using OnOutcome = std::function<void(std::uint64_t save, SaveOutcome outcome)>;
  /// Called from the watching thread, once for each time that a save has waited for its own blocks
  /// for as long as the helper might have taken: it has nothing left to do for the save.
  using OnUnfilled = std::function<void(std::uint64_t save, double secs)>;

  /// Begins to start the helper; failures show in ready() and in the saves.
  /// `program`, `segment`, `bells` and `producer` outlive this.
  /// @throws Error if the system refuses a descriptor; out_of_memory if it allows no more threads
  CheckpointProcess(const CheckpointProcessConfig& config, DrainProgram& program, RankInfo rank,
                    const ring::Segment& segment, const ring::BellSet& bells,
                    const ring::Producer& producer, OnOutcome on_outcome,
                    OnUnfilled on_unfilled = {});

  /// Asks the helper to finish what is sealed and to end, and stops watching. Where none runs and
  /// saves are expected, one is started for them. Never waits for the disk. Saves still expected
  /// are not answered any more, unless no helper can be started for them.
  ~CheckpointProcess();
  CheckpointProcess(const CheckpointProcess&) = delete;
  CheckpointProcess& operator=(const CheckpointProcess&) = delete;

  /// From now on this save is watched over. Call before its first block is staged.
  void expect(std::uint64_t save);

  /// Waits until the helper has started, at most subprocess_init_timeout_secs.
  /// @return false: it has ended before, as it was asked to
  /// @throws Error process_failed
  bool ready();

  /// Readable once nobody should wait for room in the ring any more: the helper is given up (then
  /// expected saves have failed, and the ring is spent), or stop_staging was called.
  [[nodiscard]] int given_up_fd() const noexcept { return given_up_bell_.get(); }
  void stop_staging() const noexcept;
  [[nodiscard]] bool given_up() const;

  /// Asks the helper to end once nothing is in flight, and waits for that.
  /// @return whether it has ended
  bool shut_down(double timeout_secs);

  /// Monotonic time of the last sign of progress by either side.
  [[nodiscard]] std::uint64_t last_activity_ns() const noexcept;

  /// As whom the helper acts, or would if it were started now.
  [[nodiscard]] os::Credentials credentials() const;

  [[nodiscard]] int process_id() const noexcept {
    return pid_.load(std::memory_order_relaxed);  // for display; orders nothing
  }

 private:
  struct Expected {
    std::uint32_t restarts = 0;
  };

  void watch();
  bool look();
  [[nodiscard]] bool give_up_unwatched(const char* cause) noexcept;
  void start();
  void leave_to_a_process();
  void leave_helper() noexcept;
  void collect_outcomes();
  void on_death();
  void start_again_after(const std::string& death, const std::string& last_words);
  void check_timeouts();
  [[nodiscard]] bool is_helpers_turn(std::uint64_t save) const noexcept;
  void check_stall(std::uint64_t save, std::uint64_t now);
  int kill_helper(std::string why);
  std::string kill_and_wait(const std::string& why);
  void kill_stopped(std::uint64_t secs);
  void never_ready();
  void stalled();
  void give_up(ErrorCode code, const std::string& cause);
  void deliver(std::uint64_t save, SaveOutcome outcome);
  [[nodiscard]] SaveOutcome outcome_of(std::uint64_t save) const;
  [[nodiscard]] bool has_news() const;
  [[nodiscard]] bool is_ready() const noexcept;
  [[nodiscard]] bool helper_runs() const noexcept { return static_cast<bool>(pidfd_); }
  [[nodiscard]] os::Deadline next_check() const;
  [[nodiscard]] std::exception_ptr explained_with_last_death(
      const std::exception_ptr& failure) const noexcept;
  [[nodiscard]] std::string last_words() const;

  const CheckpointProcessConfig config_;
  DrainProgram& program_;
  const RankInfo rank_;
  const ring::Segment& segment_;
  const ring::BellSet& bells_;
  const ring::Producer& producer_;
  const OnOutcome on_outcome_;
  const OnUnfilled on_unfilled_;
  const base::LogContext log_;
  os::UninheritedFd trainer_pidfd_;
  os::UninheritedFd wake_bell_;
  os::UninheritedFd given_up_bell_;

  // Shared, under mutex_.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Expected> expected_;
  std::exception_ptr given_up_;
  os::Credentials credentials_;
  bool ended_ = false;  ///< shutdown was asked for and the helper is gone
  bool detaching_ = false;
  bool was_ready_ = false;

  // The watching thread's own.
  os::UninheritedFd pidfd_;
  std::optional<LogReader> log_reader_;
  DrainExecutable executable_;
  std::uint32_t incarnation_ = 0;
  std::uint64_t started_ns_ = 0;
  std::uint64_t starting_since_ns_ = 0;  ///< the first attempt since one was ready; 0: it is ready
  std::uint64_t restart_at_ns_ = 0;      ///< a restart is due then; 0: none is
  std::uint64_t activity_floor_ns_ = 0;  ///< time-outs count from here at the earliest
  std::uint64_t helper_idle_ns_ = 0;     ///< the last look at which it had nothing to do
  bool told_unfilled_ = false;           ///< of the wait at hand
  std::uint64_t last_look_ns_ = 0;
  std::uint32_t idle_restarts_ = 0;     ///< deaths in a row without any save
  std::uint32_t fruitless_deaths_ = 0;  ///< in a row, without a block in between
  std::uint64_t tail_at_death_ = UINT64_MAX;
  std::string last_death_;
  std::string killed_because_;   ///< set while a kill of ours is under way
  std::uint64_t killed_ns_ = 0;  ///< since when
  std::atomic<int> pid_{0};
  os::OwnThread thread_;
};

}  // namespace ckptring::supervise
