// The ring of an asynchronous checkpointer: made, made anew where a save needs another one, and
// dropped.
#pragma once

#include "base/log.h"
#include "ring/bell_set.h"
#include "ring/producer.h"
#include "ring/segment.h"
#include "ring/warm.h"
#include "save/lifetime.h"
#include "save/pending_save.h"
#include "save/ring_size.h"
#include "save/saves_in_flight.h"
#include "stage/device_access.h"
#include "supervise/checkpoint_process.h"

#include <ckptring/config.h>
#include <ckptring/rank_info.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace ckptring::save {

/// One ring, the process that drains it, and the thread that populates it.
struct DrainedRing {
  DrainedRing(const CheckpointerConfig& config, supervise::DrainProgram& program, RankInfo rank,
              const ring::Geometry& geometry, supervise::CheckpointProcess::OnOutcome on_outcome,
              supervise::CheckpointProcess::OnUnfilled on_unfilled);

  ring::Segment segment;
  ring::BellSet bells;
  ring::Producer producer;
  std::unique_ptr<ring::Warmer> warmer;  ///< guarded by the mutex of Lifetime; set once
  /// Once a save comes from devices; the staging thread's.
  std::unique_ptr<stage::PinnedMemory> pinned;
  supervise::CheckpointProcess process;
  bool announced = false;  ///< logged, and populated in the background; the staging thread's
};

class RingKeeper {
 public:
  /// All of them outlive this. Reads the environment.
  RingKeeper(Lifetime& life, SavesInFlight& saves, const CheckpointerConfig& config, RankInfo rank,
             stage::DeviceAccess& devices);

  // Of one thread at a time: the constructing one, then the staging thread.

  /// The first one, before any file is known.
  /// @throws Error out_of_memory; permission, io if the system refuses what a ring is made of
  void make_first();
  /// The current ring if it will do for this job, else a new one, known to the devices that the job
  /// comes from. For a new one it waits until all saves before `turn` have ended.
  /// @throws Error invalid_argument, out_of_memory, aborted once the checkpointer has given up;
  ///         permission if no helper can be had that acts as the saving thread does
  std::shared_ptr<DrainedRing> ring_for(const SaveJob& job, const PendingSave& turn);

  // Any thread.

  /// Null while it is remade, and after that failed.
  [[nodiscard]] std::shared_ptr<DrainedRing> current() const;
  /// The same, with the mutex of Lifetime held.
  [[nodiscard]] std::shared_ptr<DrainedRing> current_locked() const { return ring_; }
  /// The ring there is, or the one that is being made.
  /// @throws Error closed, or why there is none
  [[nodiscard]] std::shared_ptr<DrainedRing> await(const char* operation) const;
  /// Until the pages of that one are there, or nobody populates them.
  void wait_prefaulted() const;
  /// Since the last sign of life of either side, or since `since_ns` if there was none later.
  [[nodiscard]] double secs_without_progress(std::uint64_t since_ns) const;
  /// In words, what nobody has seen the end of.
  [[nodiscard]] std::string copies_under_way() const;

  // Once nothing is staged any more.

  /// Asks its helper to end, and waits for that a while.
  void drop();
  /// Leaves its helper to its work.
  void let_go();

 private:
  static void check_credentials(const PendingSave& turn);
  std::shared_ptr<DrainedRing> fitting(const plan::FilePlan& plan, const PendingSave& turn);
  [[nodiscard]] bool is_usable(const DrainedRing* ring, const PendingSave& turn,
                               std::uint64_t tables_bytes) const;
  void remake(const std::string& path, const RingSize& size);
  void make(const RingSize& size, bool final);
  void announce(DrainedRing& ring, const std::string& why);
  void pin(DrainedRing& ring, int device) const;
  void on_unfilled(std::uint64_t number, double secs) const;

  Lifetime& life_;
  SavesInFlight& saves_;
  const CheckpointerConfig& config_;
  const RankInfo rank_;
  const base::LogContext log_;
  stage::DeviceAccess& devices_;
  supervise::DrainProgram program_;
  // Guarded by the mutex of life_.
  std::shared_ptr<DrainedRing> ring_;
  std::exception_ptr remake_failure_;
};

/// How long an idle helper may take to end before it is left to itself.
inline constexpr double kIdleShutdownSecs = 5;

}  // namespace ckptring::save
