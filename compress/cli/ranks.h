// Where this process stands among those that torchrun, mpirun or srun have started: from the
// variables that they set.
#pragma once

#include <functional>
#include <string>

#include "compress/core/ranks.h"

namespace slmc {

/// Value of a variable of the environment, "" if it is not set.
using Environment = std::function<std::string(const char* name)>;

/// The place that these variables give; alone if there are none, or if they say so:
///   RANK, WORLD_SIZE, LOCAL_WORLD_SIZE                  torchrun, or by hand
///   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_SIZE            mpirun of Open MPI
///   PMI_RANK, PMI_SIZE, MPI_LOCALNRANKS                 mpirun of MPICH and Intel MPI
///   SLURM_PROCID, SLURM_STEP_NUM_TASKS                  srun
/// All meet at MASTER_ADDR:MASTER_PORT. Without MASTER_ADDR it is this machine if all run on it, or
/// the first of srun's; without MASTER_PORT it is 29500, or made from the number of Slurm's job.
/// Throws Error(kUsage) for variables that are missing or are not numbers in range.
RankPlace find_rank(const Environment& environment);

/// The first host of a list as Slurm writes it: "node003" of "node[003-007,9],login1".
std::string first_host(const std::string& list);

}  // namespace slmc
