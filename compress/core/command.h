// A verb of the command line. Each lives in compress/cli/commands/<verb>.cc and is found by the
// build.
#pragma once

#include <iosfwd>
#include <memory>
#include <string_view>

#include "compress/core/error.h"
#include "compress/core/stage.h"

namespace slmc {

class Command : public Configurable {
 public:
  virtual std::string_view name() const = 0;     ///< "inspect", "train-tokenizer".
  virtual std::string_view summary() const = 0;  ///< One line.
  /// True for the verbs that slmc-run has too (no stage, no LibTorch).
  virtual bool runtime_only() const { return false; }
  /// Prints people's text to stdout unless `json` goes there. Returns what --json writes;
  /// `exit_code` may be set to kGateFailed.
  virtual Json run(Context& context, std::ostream& out, ExitCode& exit_code) = 0;
  /// For verbs that wrap a stage; null otherwise. The program then offers --dry-run and --plan.
  virtual Stage* stage() { return nullptr; }
  /// True for verbs that obey `Context::dry_run` themselves; for the others --dry-run checks and
  /// prints the options.
  virtual bool handles_dry_run() { return stage() != nullptr; }
  /// Whether several processes can run it together.
  virtual bool shares_work() { return stage() != nullptr && stage()->shares_work(); }
  /// True if --device says where some of its work is done; for the others any but cpu is refused.
  virtual bool uses_device() { return stage() != nullptr && stage()->uses_device(); }
  /// Left out of the overview ("docs").
  virtual bool hidden() const { return false; }
};

}  // namespace slmc
