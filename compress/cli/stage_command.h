// A verb around a stage: plan, refine, run; --dry-run and --plan; a summary for people and the
// report beside the output.
#pragma once

#include <memory>
#include <string>

#include "compress/core/command.h"

namespace slmc {

/// The verb has the stage's name, summary and options, and --plan. A report may hold "summary", a
/// text or a list of lines: they are printed as they are. The report is also written beside the
/// output (report_path).
std::unique_ptr<Command> make_stage_command(std::unique_ptr<Stage> stage,
                                            bool runtime_only = false);

}  // namespace slmc
