// Running one stage the way the command line and the recipes both do.
#pragma once

#include <string>

#include "compress/core/stage.h"

namespace slmc {

/// Runs the plan and writes the report beside the output. Checks --max-ram against the plan's
/// prediction first (Error(kResources)).
Report run_stage(Stage& stage, const Plan& plan, Context& context);

/// Where the report of `output` goes: "<output>.report.json" for a file,
/// "<output>/slmc_report.json" for a folder, "" for none.
std::string report_path(const std::string& output);

/// For people: what was written, how large, how long it took, and the stage's own "summary" lines.
std::string report_summary(const Report& report);

}  // namespace slmc
