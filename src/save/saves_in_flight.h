// The saves that have begun and not ended.
#pragma once

#include "save/earlier_failures.h"
#include "save/lifetime.h"
#include "save/pending_save.h"
#include "supervise/checkpoint_process.h"

#include <ckptring/save_handle.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <vector>

namespace ckptring::save {

/// Thread-safe, but for what asks for the mutex of Lifetime to be held.
class SavesInFlight {
 public:
  SavesInFlight(Lifetime& life, int rank) : life_(life), rank_(rank), failures_(rank) {}

  /// For one more beside at most `limit` - 1, or for the end of the checkpointer.
  /// @param lock holds the mutex
  void wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t limit);

  // With the mutex held.
  void add(const Save& save) { in_flight_.push_back(save); }
  void announce(std::uint64_t number, const Save& save) { by_number_.emplace(number, save); }
  void forget(std::uint64_t number) { by_number_.erase(number); }
  /// Their ring is gone.
  void forget_numbers() { by_number_.clear(); }
  [[nodiscard]] bool any_before(std::uint64_t submitted_ns) const;
  /// Oldest first.
  [[nodiscard]] const std::vector<Save>& all() const { return in_flight_; }

  /// Null if there is none.
  [[nodiscard]] Save oldest() const;

  /// What the checkpoint process says of a save that was announced.
  void on_outcome(std::uint64_t number, supervise::SaveOutcome outcome);
  /// Makes `written` ready, once.
  void finish(const Save& save, const std::exception_ptr& error);
  /// Of a save that has ended.
  [[nodiscard]] std::exception_ptr failure_of(const PendingSave& save) const;

  /// Of those that ended.
  [[nodiscard]] EarlierFailures& failures() noexcept { return failures_; }
  /// Those that failed since the last call, and those that have not ended by then.
  /// @throws Error closed
  std::vector<UnwrittenSave> wait_written(std::chrono::steady_clock::time_point deadline);

 private:
  Lifetime& life_;
  const int rank_;
  EarlierFailures failures_;
  // Guarded by the mutex of life_.
  std::vector<Save> in_flight_;              ///< oldest first
  std::map<std::uint64_t, Save> by_number_;  ///< of the current ring
};

}  // namespace ckptring::save
