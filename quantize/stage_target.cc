#include "quantize/stage_target.h"

#include <algorithm>
#include <optional>

#include "compress/core/atomic_file.h"
#include "compress/core/conditions.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate.h"
#include "quantize/divergence.h"
#include "quantize/imatrix.h"
#include "quantize/rules.h"
#include "quantize/scheme.h"

namespace slmc {
namespace fs = std::filesystem;

std::string sensitivity_path(const QuantizeOptions& options) {
  return options.output + ".partial.sensitivity";
}

std::string conditions_path(const QuantizeOptions& options) {
  return without_trailing_slash(options.output) + ".partial.conditions";
}

CalibrationForward forward_of(const QuantizeOptions& options, const Context* context) {
  return options.calibration.empty() ? CalibrationForward() : calibration_forward(options, context);
}

std::string check_conditions(const QuantizeOptions& options, const CalibrationForward& forward,
                             const Context& context) {
  if (options.calibration.empty()) return "";
  const std::string path = conditions_path(options);
  const Json now = forward.conditions();
  std::string difference;
  if (context.resume && fs::exists(path)) {
    difference = conditions_difference(read_json(path), now);
    if (!difference.empty() && !context.allow_drift)
      throw_usage(cat(path, ": the run cannot be continued to the same bits: ", difference,
                      "; start again without --resume, or accept other results with "
                      "--allow-drift"));
  }
  write_text(path, now.dump() + "\n");
  return difference;
}

std::string scheme_text(const QuantizeOptions& options) {
  return has_target(options) ? "target " + target_text(options) : options.scheme;
}

bool costs_by_calibration(const QuantizeOptions& options, const Model& model) {
  return options.eval_text.empty() && !options.calibration.empty() && options.check == "run" &&
         !model.arch().encoder;
}

WeightStageOptions with_cost_text(const QuantizeOptions& options, const Model& model) {
  WeightStageOptions with = options;
  if (costs_by_calibration(options, model)) {
    const int64_t all = expected_tokens(options);
    with.eval_text = options.calibration.front();
    with.eval_tokens = options.eval_tokens > 0 ? std::min(options.eval_tokens, all) : all;
  }
  return with;
}

Json calibration_cost(const QuantizeOptions& options, const Model& model,
                      const CalibrationData& data, Context& context) {
  std::vector<int32_t> ids;
  for (const auto& window :
       measuring_windows(data, options.eval_tokens > 0 ? options.eval_tokens : data.tokens))
    ids.insert(ids.end(), window.begin(), window.end());
  if (options.eval_tokens > 0 && std::ssize(ids) > options.eval_tokens)
    ids.resize(static_cast<size_t>(options.eval_tokens));
  const std::shared_ptr<const Model> written = Model::open(options.output);
  Json cost = evaluate_weights(
      *written, &model, ids,
      {.context = std::min<int64_t>(data.context, std::ssize(ids)), .also_q8 = true}, context);
  cost["text"] = "calibration";
  context.check_ram("evaluation");
  return cost;
}

SensitivitySize measuring_size(const QuantizeOptions& options, int64_t window) {
  return {.tokens = window * windows_for(single_tokens(options), window),
          .window = window,
          .calibration_tokens = expected_tokens(options),
          .hessian = needs_statistic(method_by_name(options.method), Statistic::kHessian)};
}

Plan QuantizeStage::decide(const Model& model, const CalibrationData& data,
                           const std::string& spill_folder, Plan plan, Context& context) const {
  check_predicted_ram(plan, context);
  const std::vector<Rule> rules = parse_rules(options.rule);
  std::optional<ImportanceMatrix> matrix;
  if (!options.imatrix.empty()) {
    matrix = ImportanceMatrix::open(options.imatrix);
    matrix->adopt(model, options.imatrix);
  }
  BudgetJob job;
  job.model = &model;
  job.data = &data;
  job.imatrix = matrix ? &*matrix : nullptr;
  job.method = &method_by_name(options.method);
  job.method_options = options;
  job.groups =
      budget_groups(options, model, budget_candidates(options, model, rules, options.output));
  job.tokens = single_tokens(options);
  // Measuring alone leaves what a killed run has kept as it is.
  const bool keeps = context.dry_run.empty() || context.resume;
  if (keeps) job.journal = sensitivity_path(options);
  job.spill_folder = spill_folder;
  if (!options.scheme.empty()) {
    job.mix_name = options.scheme;
    job.mix = choose_types(model, scheme_by_name(options.scheme), rules, job.method->by_importance);
  }
  job.trial = [&](const Plan& decided) {
    QuantizeStage stage = *this;
    stage.options.output = options.output + ".trial.gguf";
    stage.options.modelfile = false;
    stage.options.eval_text.clear();
    stage.options.check = "bytes";  // The file itself is checked when it is written for good.
    Context fresh = context;
    fresh.force = true;
    fresh.resume = false;
    const ScratchFile trial(stage.options.output, false);
    const Report report = stage.run(decided, fresh);
    return report.at("budget").at("measured_kld").get<double>();
  };
  ScratchFile journal(job.journal, context.resume);
  ScratchFile conditions(keeps ? conditions_path(options) : "", context.resume);
  if (keeps) check_conditions(options, data.forward, context);
  Plan decided = decide_budget(options, job, std::move(plan), context);
  if (context.dry_run.empty()) {  // For a run that is killed later.
    journal.keep();
    conditions.keep();
  }
  return decided;
}

}  // namespace slmc
