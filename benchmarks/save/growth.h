// Whether a save of more bytes costs more for each of them.
#pragma once

#include "save/checkpointers.h"
#include "save/run_figures.h"
#include "save/state_shape.h"
#include "support/report.h"
#include "support/series.h"
#include "support/turns.h"
#include "support/work_directory.h"

#include <ckptring/config.h>

#include <memory>
#include <string>
#include <vector>

namespace bench {

/// Async saves of GPT-2's 444 tensors at several sizes, through a ring as large as the state.
class Growth {
 public:
  /// `saves`: see Setting. `gigabytes`: sizes of the state.
  Growth(const WorkDirectory& work, CurrentState& states,
         const ckptring::CheckpointerConfig& config, int saves,
         const std::vector<double>& gigabytes);

  /// Each size has one turn in each round, see `take_turns`.
  void run(int rounds, const AfterRound& after_round);

  /// Series by size ("growth.1gb.staged"), and as goals what the largest costs, per GB, to what
  /// the smallest does.
  void add_to(Report& report) const;

 private:
  struct Size {
    double gigabytes;
    std::unique_ptr<Setting> setting;
    std::unique_ptr<SaveContestant> contestant;
    Series staged, durable, memory, beyond_ring;
  };
  static void turn(Size& size, int round);

  std::vector<Size> sizes_;
  std::vector<std::string> notes_;
};

}  // namespace bench
