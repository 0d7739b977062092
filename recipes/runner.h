// Running a recipe: plans what can be planned, runs stage after stage, checks thresholds, and
// leaves report.json.
#pragma once

#include <iosfwd>
#include <string>

#include "recipes/recipe.h"

namespace slmc {

/// Runs `recipe` into its output folder (made if absent). `context.resume` skips stages whose
/// options and inputs are unchanged and goes on with a half-done one; `context.force` starts over;
/// with neither, a folder that holds an earlier run is Error(kUsage). Returns the report, also
/// written as <output>/report.json: {"recipe", "passed", "stages": [...]}; `passed` is false when a
/// threshold was missed, and then the stages after it were not run.
Json run_recipe(const Recipe& recipe, const StageTable& table, Context& context, std::ostream& out);

/// Plans every stage whose inputs exist (refined when context.dry_run is "measured"); writes
/// nothing. The others are shown with what they wait for.
Json plan_recipe(const Recipe& recipe, const StageTable& table, Context& context,
                 std::ostream& out);

/// One row a stage: size, parameters, perplexity, divergence, agreement, time; columns that no
/// stage has are left out.
std::string report_table(const Json& report);

}  // namespace slmc
