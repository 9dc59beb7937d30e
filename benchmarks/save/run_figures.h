// What comes out of a contestant's run.
#pragma once

#include "support/contestant.h"

#include <optional>
#include <string>
#include <vector>

namespace bench {

/// One save. Seconds; empty where a word means nothing.
struct SaveFigures {
  std::optional<double> returned;     ///< from the call until it returned
  std::optional<double> staged;       ///< from the call until the state might change again
  std::optional<double> written;      ///< from the call until everything was written, not synced
  std::optional<double> durable;      ///< from the call until it was synced and visible as well
  std::optional<double> trainer_cpu;  ///< processor time of the process whose state it is
  std::optional<double> helper_cpu;   ///< processor time of its other processes
  // Of SaveReport.
  std::optional<double> planned, captured, copied, stalled, drained, fsync, commit;
  std::optional<double> walked;  ///< reading the tensors' metadata, nothing else
};

/// Highest seen during a save, in bytes.
struct MemoryFigures {
  double beyond_state;  ///< PSS of all processes, beyond what the trainer had before
  double page_tables;   ///< the same of page tables, which PSS does not count
  std::optional<double> beyond_ring;
  std::optional<double> helper_pss;  ///< without the ring
};

/// What one contestant did in one round.
struct RunFigures {
  std::optional<double> prepared;  ///< seconds before the first save could be begun
  std::optional<SaveFigures> first;
  SaveFigures steady;  ///< medians of the following ones
  std::optional<MemoryFigures> memory;
  std::vector<std::string> notes;  ///< what to beware of
};

using SaveContestant = Contestant<RunFigures>;

}  // namespace bench
