// Quality gates: thresholds over a stage's report. `expect: {perplexity: "< 12", against.kld_mean:
// "< 0.05"}`.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "recipes/node.h"

namespace slmc {

/// One line of `expect`: a dotted path into the report and a condition. Conditions: `< x`, `<= x`,
/// `> x`, `>= x`, `== x`, `!= x`, a range `a..b` or `[a, b]` (bounds included), or a bare value for
/// equality. x is a number, a word, or another stage's figure
/// `@stage.path`, times a factor where wanted (`< @baseline.perplexity * 1.05`).
struct Expectation {
  std::string path;
  std::string condition;  ///< As written.
  std::string operation;  ///< "<", "<=", ">", ">=", "==", "!=", "..".
  std::string low;        ///< The operand; of a range the lower bound.
  std::string high;       ///< Only of a range.
  int line = 0, column = 0;
};

/// The stages whose figures the condition names.
std::vector<std::string> stages_in(const Expectation& expectation);

/// Throws Error(kUsage) with the position for a condition that cannot be read.
std::vector<Expectation> parse_expectations(const RecipeNode& node, const std::string& file);

struct ExpectationResult {
  std::string path, expected, found;
  bool passed = false;
};
/// Gives the report of the stage called so; null when there is none.
using ReportLookup = std::function<const Json*(const std::string& stage)>;

/// A figure that is absent or null fails, and `found` says so, naming the nearest key. Throws
/// Error(kUsage) when an operand
/// `@stage.path` names nothing.
ExpectationResult check_expectation(const Expectation& expectation, const Json& report,
                                    const ReportLookup& reports);

/// The value at a dotted path ("against.kld_mean", "tasks.0.accuracy"); null when there is none.
const Json* at_path(const Json& json, const std::string& path);

}  // namespace slmc
