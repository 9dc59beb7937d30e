#include "load/goals.h"

#include "support/goals.h"

namespace bench {

void add_load_goals(Report& report, const LoadRounds& rounds) {
  Goals<LoadRun> goals(report, rounds);
  goals.at_least("in_place_warm_to_torch", "in place, warm: to torch.load(mmap=True) + copy",
                 goals.ratio_of("ckptring", "in_place_warm", "torch_mmap", "in_place_warm"), 1);
  goals.at_least("in_place_cold_to_fio", "in place, cold: to fio",
                 goals.ratio_of("ckptring", "in_place_cold", "fio", "in_place_cold"), 0.95);
}

}  // namespace bench
