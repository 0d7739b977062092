// The program around the verbs: finds the verb, parses, runs it, prints, and maps errors to exit
// codes. The only place that reads the environment (SLMC_THREADS, SLMC_TORCH, SLMC_NCCL, SLMC_ISA,
// HF_HOME) and that ends the process.
#pragma once

#include <string>

#include "compress/cli/help.h"

namespace slmc {

struct ProgramInfo {
  std::string name;           ///< "slmc".
  bool runtime_only = false;  ///< Only the verbs that need neither stages nor LibTorch.
};

/// Every verb of the program, in the order of file names.
CommandList all_commands(bool runtime_only);

/// Returns the exit code; never throws.
int run_program(const ProgramInfo& program, int argc, char** argv);

}  // namespace slmc
