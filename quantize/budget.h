// Budgets: a size, an average of bits, a speed or a divergence is asked for, and the type of every
// tensor is chosen by what it was measured to cost.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/stage.h"
#include "formats/model.h"
#include "quantize/budget_solver.h"
#include "quantize/rules.h"
#include "quantize/sensitivity.h"

namespace slmc {

/// At most one of the four targets is set.
struct BudgetOptions {
  std::string target_size;  ///< Bytes of the whole file, such as "900MB"; empty: none.
  double target_bpw = 0;    ///< Bits a weight, over all tensors; 0: none.
  double target_kld = 0;    ///< Nats a token on the calibration text; 0: none.
  double target_speed = 0;  ///< Over q8_0 throughout, as docs/calibration.md counts it; 0: none.
  std::vector<std::string> target_types;  ///< Candidates; empty: all block types and the source's.
  int64_t target_tokens = 2048;           ///< On which whole files' divergence is measured.
  int64_t target_measured = 1;            ///< Types of each tensor measured, the rest follow.
};

void visit_budget(BudgetOptions& options, Fields& fields);
bool has_target(const BudgetOptions& options);
/// On which single tensors' divergence is measured: a quarter, for which tensors cost more than
/// others is clear long before by how much.
int64_t single_tokens(const BudgetOptions& options);
/// "size=900MB", for the written file.
std::string target_text(const BudgetOptions& options);

/// What one tensor may become: one type where a rule, its shape or the container says so.
struct Candidates {
  std::vector<DType> types;
  std::string reason;
};
/// For every tensor of the model, in its order. Throws Error(kUsage) for more than one target, an
/// unknown candidate type or an output that is no GGUF.
std::vector<Candidates> budget_candidates(const BudgetOptions& options, const Model& model,
                                          const std::vector<Rule>& rules,
                                          const std::string& output);
/// The tensors that get a type together (a GGUF may fuse them), vectors left out; with anchors.
std::vector<BudgetGroup> budget_groups(const BudgetOptions& options, const Model& model,
                                       const std::vector<Candidates>& candidates);

/// Fills the plan's undecided rows with "one of {...}, by measurement" and details "budget": the
/// bytes around the tensors, and what measuring will take (`size`, to which the number of variants
/// is added). `smallest_bytes`: of the file with every tensor at its smallest. Throws Error(kUsage)
/// naming what is possible where the target is not.
void plan_budget(const BudgetOptions& options, const Model& model,
                 const std::vector<Candidates>& candidates, uint64_t smallest_bytes,
                 SensitivitySize size, Plan& plan);

/// Writes a file by a decided plan and returns its divergence on the measuring windows.
using Trial = std::function<double(const Plan&)>;
/// Throws Error(kBug) for a file that is larger than the target.
void check_size(const BudgetOptions& options, uint64_t bytes);
/// Of a written file on the measuring windows.
double measured_divergence(const Model& model, const std::string& written,
                           const CalibrationData& data, int64_t tokens, Context& context);

struct BudgetJob : SensitivityJob {
  Trial trial;                    ///< For a divergence target.
  std::string mix_name;           ///< A scheme to compare with; empty: none,
  std::vector<TypeChoice> mix{};  ///< and its types in the model's order.
};
/// Measures and decides: rows, bytes, notes, details "budget". For a divergence target the choice
/// is written by `trial` and corrected by what it gives, a few times. Throws Error(kUsage) naming
/// the least divergence where the target is below it, Error(kUnsupported) where no trial met it.
Plan decide_budget(const BudgetOptions& options, const BudgetJob& job, Plan plan, Context& context);

}  // namespace slmc
