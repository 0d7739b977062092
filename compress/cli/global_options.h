// The options that every verb has.
#pragma once

#include <string>

#include "compress/core/fields.h"
#include "compress/core/stage.h"

namespace slmc {

struct GlobalOptions : Configurable {
  int64_t threads = 0;
  std::string device = "cpu";
  int64_t seed = 0;
  std::string json;
  std::string dry_run;  ///< "", "plan" or "measured".
  std::string max_ram;
  std::string torch;
  bool force = false, resume = false, allow_drift = false;
  bool quiet = false, verbose = false, version = false;

  void visit(Fields& fields) override;
  /// Environment (SLMC_THREADS, SLMC_TORCH) fills what the command line left out. Throws
  /// Error(kUsage).
  Context context() const;
};

}  // namespace slmc
