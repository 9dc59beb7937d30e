// What a launcher says in the environment: which process of a job this is.
//
//   torchrun, by hand   RANK, WORLD_SIZE, LOCAL_WORLD_SIZE
//   Open MPI            OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_LOCAL_SIZE
//   MPICH, Intel MPI    PMI_RANK, PMI_SIZE, MPI_LOCALNRANKS
//   MVAPICH2            MV2_COMM_WORLD_RANK, MV2_COMM_WORLD_SIZE, MV2_COMM_WORLD_LOCAL_SIZE
//   srun                SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_TASKS_PER_NODE
//
// The first of these counts before all others. Of srun only what is said of a step counts: a batch
// script has SLURM_PROCID=0 and SLURM_NTASKS=8 too, and is one process. In the shell of a step of
// several tasks (srun -n 4 --pty bash) nobody can tell the two: that is an error. MPI's launchers
// are started in a step, or start one for their daemons, and hand its variables on: they count
// before srun.
#pragma once

#include <optional>
#include <string>

namespace ckptring::base {

struct Launch {
  int rank;
  int world_size;
  std::string named_by;  ///< the variable that the rank is from
};

/// Nothing if no launcher says anything.
/// @throws Error invalid_argument where one says half of it or nonsense, or two contradict each
///         other so that nobody can know
std::optional<Launch> launched();

/// The largest number of processes on this machine that any launcher names; nothing if none does.
/// @throws Error invalid_argument for nonsense
std::optional<int> launched_on_this_machine();

/// What no other launch has, and no restart of this one, and all its processes have alike. Nothing
/// if the environment has no such thing.
///
///   torchrun  on one node: TORCHELASTIC_RUN_ID, unless it is the default "none", and the restart's
///             number, which each node counts for itself
///   srun      for its own tasks: SLURM_JOB_ID, SLURM_STEP_ID and SLURM_RESTART_COUNT
std::optional<std::string> launch_id();

}  // namespace ckptring::base
