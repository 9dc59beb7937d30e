// Which process of a training job this is.
#pragma once

#include <ckptring/export.h>

namespace ckptring {

/// Names as in PyTorch. A rank writes `checkpoint_{global_rank}.pt`.
struct RankInfo {
  int global_rank = 0;        ///< 0 <= global_rank < global_world_size
  int global_world_size = 1;  ///< number of processes in the job, at least 1
};

/// Rank and world size as the launcher says them in the environment: `RANK` and `WORLD_SIZE`, else
/// those of mpirun (`OMPI_COMM_WORLD_*`, `PMI_*`, `MV2_COMM_WORLD_*`), else those of a task of srun
/// (`SLURM_PROCID` and `SLURM_STEP_NUM_TASKS`: a batch script's own process is none); else 0 of 1.
/// @throws Error invalid_argument where half of it is said, nonsense, or a contradiction
CKPTRING_API RankInfo default_rank_info();

}  // namespace ckptring
