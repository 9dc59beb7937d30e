// Which process of a training job this is.
#pragma once

namespace ckptring {

/// Names as in PyTorch. A rank writes `checkpoint_{global_rank}.pt`.
struct RankInfo {
  int global_rank = 0;        ///< 0 <= global_rank < global_world_size
  int global_world_size = 1;  ///< number of processes in the job, at least 1
};

}  // namespace ckptring
