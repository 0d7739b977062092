// From measured sensitivities to a plan: the solver's choice as rows, the curve, the comparison
// with a named mix, and the trials of a divergence target.
#include <algorithm>
#include <optional>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "quantize/budget.h"
#include "quantize/budget_costs.h"

namespace slmc {
namespace {

constexpr size_t kCurvePoints = 25;
constexpr int kTrials = 4;

/// One decision: solves, and writes the choice into a plan.
class Decision {
 public:
  Decision(const BudgetOptions& options, const BudgetJob& job, Sensitivity known, const Plan& plan)
      : options_(options), job_(job), model_(*job.model), known_(std::move(known)), plan_(plan) {
    const Json& budget = plan.details.at("budget");
    around_ = budget.at("bytes_around");
    vectors_ = budget.at("vector_bytes");
    items_ = items_of(measure_of(options), model_, job.groups, known_.divergence);
  }

  BudgetSolution solve(double scale) const {
    if (options_.target_kld > 0) {
      const double limit = options_.target_kld / scale, least = smallest_loss(items_);
      if (least > limit)
        throw_usage(cat("--target-kld ", options_.target_kld, ": the least possible is about ",
                        digits(least * scale), "; give --target-types wider ones"));
      return least_cost(items_, limit);
    }
    return least_loss(items_, limit_of(options_, model_, job_.groups, around_, vectors_));
  }

  /// `scale`: what trials found the divergence to be over the sum.
  Plan decided(const BudgetSolution& solution, double scale) const {
    Plan plan = plan_;
    for (size_t g = 0; g < job_.groups.size(); ++g) {
      const BudgetGroup& group = job_.groups[g];
      if (group.types.size() < 2) continue;
      for (PlanRow& row : plan.rows) {
        if (std::find(group.tensors.begin(), group.tensors.end(), row.tensor) ==
            group.tensors.end())
          continue;
        const DType type = group.types[solution.chosen[g]];
        row.to = std::string(dtype_name(type));
        row.bytes_after = tensor_bytes(model_.info(row.tensor), type);
        row.reason = cat("target ", target_text(options_), ": measured to cost ",
                         digits(known_.divergence[g][solution.chosen[g]]), " nats");
        if (group.tensors.size() > 1)
          row.reason += cat(" with ", group.tensors.size() - 1, " more");
      }
    }
    plan.output_bytes = file_bytes(solution.chosen);
    Json& budget = plan.details["budget"];
    budget["predicted_kld"] = solution.loss * scale;
    budget["sum_of_single_klds"] = solution.loss;
    budget["least_possible_sum"] = solution.bound;
    budget["singles_measured_on_tokens"] = count_tokens(measuring_windows(*job_.data, job_.tokens));
    budget["measured_on_tokens"] = options_.target_tokens;
    budget["types_measured_each"] = options_.target_measured;
    budget["curve"] = curve(scale);
    budget["tensors"] = sensitivities();
    if (!job_.mix.empty()) compare_mix(scale, plan);
    plan.notes.push_back(
        cat("Target ", target_text(options_), ": ", plan.output_bytes,
            " bytes, predicted divergence ", digits(solution.loss * scale), " nats a token",
            solution.bound < solution.loss ? cat(" (at best ", digits(solution.bound * scale), ")")
                                           : "",
            "."));
    return plan;
  }

 private:
  uint64_t file_bytes(const std::vector<size_t>& chosen) const {
    uint64_t bytes = around_;
    for (size_t g = 0; g < job_.groups.size(); ++g)
      bytes += cost_of(Measure::kFile, model_, job_.groups[g], job_.groups[g].types[chosen[g]]);
    return bytes;
  }

  Json curve(double scale) const {
    Json points = Json::array();
    for (const BudgetSolution& point : budget_curve(items_, kCurvePoints)) {
      points.push_back(
          {{"size_bytes", file_bytes(point.chosen)}, {"predicted_kld", point.loss * scale}});
      if (options_.target_speed > 0) points.back()["bytes_read"] = point.cost;
    }
    return points;
  }

  /// What a named mix would have come to, by the same figures.
  void compare_mix(double scale, Plan& plan) const {
    double loss = 0;
    uint64_t bytes = around_;
    for (size_t g = 0; g < job_.groups.size(); ++g) {
      const BudgetGroup& group = job_.groups[g];
      const auto place =
          std::find_if(model_.tensors().begin(), model_.tensors().end(),
                       [&](const TensorInfo& info) { return info.name == group.tensors.front(); });
      const DType type = job_.mix[static_cast<size_t>(place - model_.tensors().begin())].type;
      const auto at = std::find(group.types.begin(), group.types.end(), type);
      if (at == group.types.end()) return;  // Not among the candidates, so not measured.
      bytes += cost_of(Measure::kFile, model_, group, type);
      loss += known_.divergence[g][static_cast<size_t>(at - group.types.begin())];
    }
    plan.details["budget"]["scheme"] = {
        {"name", job_.mix_name}, {"size_bytes", bytes}, {"predicted_kld", loss * scale}};
    plan.notes.push_back(cat("Scheme ", job_.mix_name, " would come to ", bytes,
                             " bytes, predicted divergence ", digits(loss * scale), "."));
  }

  Json sensitivities() const {
    Json all = Json::array();
    for (size_t g = 0; g < job_.groups.size(); ++g) {
      if (job_.groups[g].anchors.empty()) continue;
      Json types = Json::object();
      for (size_t t = 0; t < job_.groups[g].types.size(); ++t)
        types[std::string(dtype_name(job_.groups[g].types[t]))] = known_.divergence[g][t];
      all.push_back({{"tensors", job_.groups[g].tensors}, {"kld", std::move(types)}});
    }
    return all;
  }

  const BudgetOptions& options_;
  const BudgetJob& job_;
  const Model& model_;
  Sensitivity known_;
  const Plan& plan_;
  uint64_t around_ = 0, vectors_ = 0;
  BudgetItems items_;
};

}  // namespace

Plan decide_budget(const BudgetOptions& options, const BudgetJob& job, Plan plan,
                   Context& context) {
  const Decision decision(options, job, measure_sensitivity(job, context), plan);
  if (options.target_kld <= 0) return decision.decided(decision.solve(1), 1);
  // What many tensors cost together is the sum only about: whole files say how much it is off.
  double scale = 1;
  Json trials = Json::array();
  std::optional<Plan> best;
  std::vector<size_t> last;
  for (int round = 0; round < kTrials; ++round) {
    const BudgetSolution solution = decision.solve(scale);
    if (solution.chosen == last) break;
    last = solution.chosen;
    Plan decided = decision.decided(solution, scale);
    const double found = job.trial(decided);
    context.check_interrupt();
    trials.push_back({{"size_bytes", decided.output_bytes},
                      {"predicted_kld", solution.loss * scale},
                      {"measured_kld", found}});
    const bool met = found <= options.target_kld;
    if (met && (!best || decided.output_bytes < best->output_bytes)) best = std::move(decided);
    if (!(solution.loss > 0) || (met && found > 0.95 * options.target_kld)) break;
    // A little to the safe side where the target was overstepped.
    scale = found / solution.loss * (met ? 1.0 : 1.01 + 0.02 * round);
  }
  if (!best)
    throw_unsupported(cat("--target-kld ", options.target_kld, ": ", trials.size(),
                          " files were tried and the last has ",
                          digits(trials.back().at("measured_kld").get<double>()),
                          "; give a larger one, or --method gptq"));
  best->details["budget"]["trials"] = std::move(trials);
  return *best;
}

}  // namespace slmc
