#include "quantize/stage.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model_writer.h"
#include "formats/modelfile.h"
#include "formats/output_layout.h"
#include "quantize/calibrated.h"
#include "quantize/kv_calibration.h"
#include "quantize/method.h"
#include "quantize/report.h"
#include "quantize/rules.h"
#include "quantize/smoothing.h"
#include "quantize/stage_options.h"
#include "quantize/stage_target.h"
#include "quantize/stream.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

std::vector<OutputTensor> targets_of(const Plan& plan, const Model& model) {
  if (plan.rows.size() != model.tensors().size()) {
    throw_bad_input(cat("the plan has ", plan.rows.size(), " tensors, ", model.path(), " has ",
                        model.tensors().size(), "; make the plan again"));
  }
  std::vector<OutputTensor> targets;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    const TensorInfo& info = model.tensors()[i];
    if (row.tensor != info.name || row.shape != info.shape) {
      throw_bad_input(cat("the plan's row ", i, " is ", row.tensor, " ", shape_text(row.shape),
                          ", ", model.path(), " has ", info.name, " ", shape_text(info.shape),
                          "; make the plan again"));
    }
    if (row.to.starts_with("one of {"))
      throw_usage(cat("the plan leaves the type of ", info.name,
                      " open; refine it first (--dry-run=measured)"));
    const DType type = dtype_from_name(row.to);
    if (find_block_codec(type) == nullptr || info.shape.back() % dtype_block(type) != 0 ||
        (info.shape.size() < 2 && type != DType::kF32)) {
      throw_bad_input(cat("the plan gives ", info.name, " the type ", row.to,
                          ", which it cannot have; make the plan again"));
    }
    targets.push_back({info.name, type, info.shape});
  }
  return targets;
}

std::string modelfile_of(const QuantizeOptions& options, const Model& model) {
  return modelfile_text({.gguf = fs::path(options.output).filename().string(),
                         .chat_template = ChatTemplate::from_assets(model.assets()),
                         .context = model.arch().context});
}

std::string modelfile_path(const QuantizeOptions& options) {
  return (fs::path(options.output).parent_path() / "Modelfile").string();
}

/// What is found out about each tensor, kept until the output is whole.
std::string facts_path(const QuantizeOptions& options) {
  return without_trailing_slash(options.output) + ".partial.facts";
}

OutputSpec output_spec(const QuantizeOptions& options, const Model& model,
                       std::vector<OutputTensor> targets, const std::string& source_hash,
                       const std::string& statistics_hash, const Context* context) {
  OutputSpec spec = {.path = options.output,
                     .arch = model.arch(),
                     .config = model.config(),
                     .assets = model.assets(),
                     .tensors = std::move(targets),
                     .name = source_name(model),
                     .file_type = std::nullopt,
                     .metadata = {{"slmc.version", slmc_version()},
                                  {"slmc.quantize.scheme",
                                   has_target(options) ? "by measurement" : options.scheme},
                                  {"slmc.quantize.method", options.method},
                                  {"slmc.source.hash", source_hash}},
                     .force = context != nullptr && context->force,
                     .resume = context != nullptr && context->resume};
  // Values come with calibration; their number is known.
  spec.arch.kv_scales.assign(
      options.kv_type.empty() ? 0 : static_cast<size_t>(2 * spec.arch.layers), 1.0f);
  if (!has_target(options)) spec.file_type = scheme_by_name(options.scheme).file_type;
  // A resumed run must have learned from the same text in the same way.
  if (!statistics_hash.empty()) {
    spec.metadata.push_back({"slmc.quantize.statistics", statistics_hash});
    spec.metadata.push_back({"slmc.quantize.options",
                             cat("damping=", options.damping, " act_order=", options.act_order,
                                 " sweeps=", options.sweeps, " correction=", options.correction,
                                 options.smooth.empty() ? "" : " smooth=", options.smooth,
                                 options.smooth_alpha < 0 ? "" : " smooth_alpha=",
                                 options.smooth_alpha < 0 ? "" : cat(options.smooth_alpha),
                                 options.observer.empty() ? "" : " observer=", options.observer,
                                 options.kv_type.empty() ? "" : " kv_type=", options.kv_type)});
  }
  return spec;
}

/// Memory is bounded, and it is kept with hidden states in a file.
bool spills(const Plan& plan, const Context& context) {
  return plan.details.value("spill", false) || is_tight(plan, context);
}

/// Of the method and of what smooths before it.
uint64_t calibrated_peak(const QuantizeOptions& options, const Model& model,
                         const std::vector<OutputTensor>& targets, const CalibratedSize& size,
                         const CalibrationForward& forward) {
  const Method& method = method_by_name(options.method);
  const Method* const smoother = smoother_of(options, method);
  uint64_t peak = calibrated_peak_bytes(model, targets, method, size, forward);
  if (smoother != nullptr)
    peak = std::max(peak, calibrated_peak_bytes(model, targets, *smoother, size, forward));
  return peak;
}

std::string output_folder(const QuantizeOptions& options) {
  return fs::absolute(options.output).parent_path().string();
}

}  // namespace

Plan QuantizeStage::plan(const Inputs& inputs) const {
  const bool budget = has_target(options);
  if (options.scheme.empty() && !budget)
    throw_usage(cat("scheme is missing: name one of ", join(scheme_names(), ", "),
                    ", or give --target-size, --target-bpw, --target-kld or --target-speed"));
  const Method& method = method_by_name(options.method);
  const CalibrationForward forward = forward_of(options, inputs.context);
  check_statistics(options, method);
  const std::vector<Rule> rules = parse_rules(options.rule);
  const std::shared_ptr<const Model> model = open_source(options, inputs);
  std::vector<Candidates> candidates;
  std::vector<TypeChoice> choices;  // With a target: the smallest, until it is refined.
  if (budget) {
    candidates = budget_candidates(options, *model, rules, options.output);
    for (const Candidates& of : candidates) choices.push_back({of.types.front(), of.reason, false});
  } else {
    choices = choose_types(*model, scheme_by_name(options.scheme), rules, method.by_importance);
  }
  regroup(options, *model, choices);
  check_container(options, choices);
  if (options.modelfile) modelfile_of(options, *model);
  if (!options.kv_type.empty() && model->arch().encoder)
    throw_unsupported(cat("--kv-type ", options.kv_type, ": ", model->arch().family,
                          " is an encoder and keeps no keys and values"));
  if (!options.calibration.empty()) refuse_encoder(*model);
  if (!options.imatrix.empty())
    ImportanceMatrix::open(options.imatrix).adopt(*model, options.imatrix);

  Plan plan;
  plan.stage = "quantize";
  plan.output = options.output;
  plan.details = {
      {"model", model->path()}, {"scheme", scheme_text(options)}, {"method", method.name}};
  const Method* smoother = smoother_of(options, method);
  if (smoother != nullptr) plan.details["smooth"] = smoother->name;
  if (!options.observer.empty()) plan.details["observer"] = options.observer;
  if (!options.kv_type.empty()) {
    plan.details["kv_type"] = options.kv_type;
    plan.notes.emplace_back(
        "Keys and values are kept in 8 bits when the folder runs, with a fixed scale for each "
        "layer's keys and values from the calibration text.");
  }
  std::vector<OutputTensor> targets;
  int substituted = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    const TensorInfo& info = model->tensors()[i];
    const OutputTensor target{info.name, choices[i].type, info.shape};
    const auto rows = static_cast<uint64_t>(element_count(info.shape) / info.shape.back());
    plan.rows.push_back({.tensor = info.name,
                         .file_name = info.file_name,
                         .shape = info.shape,
                         .new_shape = info.shape,
                         .from = std::string(dtype_name(info.dtype)),
                         .to = std::string(dtype_name(target.dtype)),
                         .reason = choices[i].reason,
                         .bytes_before = info.bytes,
                         .bytes_after = rows * dtype_row_bytes(target.dtype, info.shape.back())});
    if (choices[i].substituted) ++substituted;
    if (!dtype_is_float(info.dtype))
      plan.rows.back().reason += ", from already rounded values (--dequantize)";
    targets.push_back(target);
  }
  if (substituted > 0)
    plan.notes.push_back(cat(substituted, " of ", choices.size(),
                             " tensors get another type than the mix names; the rows say why."));
  for (std::string& note : container_notes(*model, options.output))
    plan.notes.push_back(std::move(note));
  const WeightStageOptions cost = with_cost_text(options, *model);
  if (options.eval_text.empty())
    plan.notes.push_back(cost.eval_text.empty()
                             ? "Cost: not measured; --eval-text FILE measures it."
                             : "Cost: measured on the calibration text; --eval-text FILE names "
                               "another, which is fairer.");
  uint64_t encode_peak = encode_peak_bytes(*model, targets, threads()), spilled_peak = 0;
  const int64_t window = options.calibration.empty() ? 0 : calibration_window(options, *model);
  if (window > 0) {
    const int64_t tokens = expected_tokens(options);
    const auto peak = [&](bool spill) {
      return calibrated_peak(options, *model, targets, {tokens, window, spill, threads()}, forward);
    };
    encode_peak = peak(false);
    spilled_peak = peak(true);
    plan.notes.push_back(cat("Calibration: about ", tokens, " tokens in windows of ", window,
                             ", block by block behind the blocks quantized before, by ",
                             forward.text(), "."));
    plan.details["forward"] = forward.conditions();
    if (!forward.on_cpu()) {
      const uint64_t on_device =
          calibrated_device_bytes(*model, targets, {tokens, window, false, threads()}, forward);
      plan.details["device_peak_bytes"] = on_device;
      plan.notes.push_back(
          cat("About ", human_bytes(on_device), " of the memory of ", forward.device, "."));
    }
    plan.predicted_seconds += calibrated_seconds(*model, tokens, smoother != nullptr);
  }
  const std::string unknown(32, '0');
  plan.output_bytes = predicted_output_bytes(
      output_spec(options, *model, std::move(targets), unknown,
                  learns(options, method) ? unknown : std::string(), nullptr));
  if (budget) {
    plan_budget(options, *model, candidates, plan.output_bytes, measuring_size(options, window),
                plan);
    const auto measuring = plan.details["budget"]["measuring_peak_bytes"].get<uint64_t>();
    encode_peak = std::max(encode_peak, measuring);
    spilled_peak = std::max(spilled_peak, measuring);
    plan.predicted_seconds += plan.details["budget"]["measuring_seconds"].get<double>();
  }
  const bool by_calibration = options.eval_text.empty();
  const uint64_t cost_peak = cost_peak_bytes(cost, *model, plan, by_calibration ? window : 0);
  plan.predicted_peak_bytes = program_bytes(*model) + std::max(encode_peak, cost_peak);
  if (spilled_peak > 0)
    plan.least_peak_bytes = program_bytes(*model) + std::max(spilled_peak, cost_peak);
  plan.predicted_seconds +=
      work_seconds(*model, 2.5, plan.output_bytes) + cost_seconds(cost, *model);
  return plan;
}

void QuantizeStage::check_outputs(const Context& context) const {
  check_output(options.output, context.force);
  if (options.modelfile) check_output(modelfile_path(options), context.force);
}

Plan QuantizeStage::refine(Plan plan, Context& context) {
  if (options.calibration.empty()) return plan;
  if (has_target(options) && context.dry_run.empty()) check_outputs(context);  // It takes long.
  const std::shared_ptr<const Model> model =
      open_source(options, {.paths = {{"model", plan.details.at("model").get<std::string>()}}});
  CalibrationData data = load_calibration(options, *model);
  data.forward = forward_of(options, &context);
  context.check_interrupt();
  // The text's tokens are known now, each of which has its states.
  if (const int64_t more = data.tokens - expected_tokens(options); more > 0)
    plan.predicted_peak_bytes +=
        calibrated_states_bytes(*model, method_by_name(options.method), more);
  if (spills(plan, context)) {
    plan.details["spill"] = true;
    plan.predicted_peak_bytes = plan.least_peak_bytes;
    plan.notes.emplace_back("Hidden states go to a file beside the output, for --max-ram.");
  }
  plan.notes.push_back(cat("Calibration: ", data.tokens, " tokens in ", data.windows.size(),
                           " windows of at most ", data.context, "."));
  for (const std::string& finding : data.findings) plan.notes.push_back(finding);
  const bool fits = context.max_ram == 0 || plan.predicted_peak_bytes <= context.max_ram;
  const std::string spill_folder = spills(plan, context) ? output_folder(options) : "";
  if (has_target(options)) plan = decide(*model, data, spill_folder, std::move(plan), context);
  if (fits) {
    // What one block is seen to take replaces a guess.
    const Method& method = method_by_name(options.method);
    const bool smoothed = smoother_of(options, method) != nullptr;
    plan.predicted_seconds +=
        probed_seconds(*model, targets_of(plan, *model), method, options, data, smoothed) -
        calibrated_seconds(*model, expected_tokens(options), smoothed);
  }
  return plan;
}

Report QuantizeStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds(), synced_before = synced_seconds();
  const bool spill = spills(plan, context);
  check_predicted_ram(plan, context);
  const std::shared_ptr<const Model> model =
      open_source(options, {.paths = {{"model", plan.details.at("model").get<std::string>()}}});
  const Method& method = method_by_name(options.method);
  const std::vector<OutputTensor> targets = targets_of(plan, *model);
  check_outputs(context);
  const CalibrationForward forward = forward_of(options, &context);

  const std::string hash = model->content_hash();
  check_statistics(options, method);
  ScaledWeights weights(*model);
  CalibratedJob job{.model = model.get(),
                    .weights = &weights,
                    .targets = &targets,
                    .method = &method,
                    .method_options = options,
                    .allow_fallback = options.allow_fallback,
                    .facts_path = facts_path(options),
                    .spill_folder = {}};
  if (!context.resume) fs::remove(job.facts_path);
  ScratchFile facts(job.facts_path, context.resume);
  ScratchFile sensitivity(sensitivity_path(options), context.resume);
  ScratchFile conditions(conditions_path(options), context.resume);
  const std::string drift = check_conditions(options, forward, context);
  std::optional<CalibrationData> calibration;
  std::optional<ImportanceMatrix> matrix;
  std::string statistics_hash;
  if (!options.calibration.empty()) {
    calibration = load_calibration(options, *model);
    calibration->forward = forward;
    if (options.imatrix.empty()) job.data = &*calibration;
    if (spill) job.spill_folder = output_folder(options);
    if (learns(options, method)) statistics_hash = calibration->hash;
  }
  if (!options.imatrix.empty()) {
    matrix = ImportanceMatrix::open(options.imatrix);
    matrix->adopt(*model, options.imatrix);
    job.imatrix = &*matrix;
    statistics_hash = hash_file(options.imatrix);
  }
  OutputSpec spec = output_spec(options, *model, targets, hash, statistics_hash, &context);
  if (!options.observer.empty()) job.observer = &observer_by_name(options.observer);
  const Method* smoother = smoother_of(options, method);
  if (smoother != nullptr) {
    job.known = smooth_model({.model = model.get(),
                              .targets = &targets,
                              .smoother = smoother,
                              .method_options = options,
                              .data = job.data,
                              .spill_folder = job.spill_folder},
                             weights, context);
  }
  if (!options.kv_type.empty()) {
    fix_cache(options.observer, job, weights, context);
    spec.arch.kv_scales = weights.arch().kv_scales;
  }
  const std::unique_ptr<ModelWriter> writer = ModelWriter::create(std::move(spec));
  if (has_target(options)) check_size(options, writer->total_bytes());
  std::vector<TensorOutcome> outcomes;
  if (learns(options, method)) {
    outcomes = encode_calibrated(job, *writer, context);
  } else {
    for (const Distortion& distortion : encode_model(*model, targets, method, *writer, context))
      outcomes.push_back({distortion, method.name, Json::object()});
  }
  writer->finish([&](const Model& written) { check_written(options, written, context); });
  facts.finished();
  sensitivity.finished();
  conditions.finished();
  if (options.modelfile) write_text(modelfile_path(options), modelfile_of(options, *model));
  const double encode_seconds = now_seconds() - start;

  std::shared_ptr<const Model> written;
  for (size_t i = 0; i < targets.size();
       ++i) {  // What a killed run had encoded is measured from the file.
    if (outcomes[i].distortion.squared_weight >= 0) continue;
    if (!written) written = Model::open(options.output);
    outcomes[i].distortion = measure_tensor(*model, *written, targets[i].name);
  }
  Json cost = costs_by_calibration(options, *model)
                  ? calibration_cost(options, *model, *calibration, context)
                  : measure_cost(options, *model, options.output, context);

  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["encode_seconds"] = encode_seconds;
  report["sync_seconds"] = synced_seconds() - synced_before;
  report["inputs"] = {{"model", model_facts(*model, hash)}};
  report["scheme"] = scheme_text(options);
  report["method"] = {{"asked", options.method}, {"used", method.name}};
  if (smoother != nullptr) report["method"]["smooth"] = smoother->name;
  if (!options.observer.empty()) report["method"]["observer"] = options.observer;
  if (!options.kv_type.empty()) report["method"]["kv_type"] = options.kv_type;
  if (calibration) {
    report["calibration"] = calibration->facts;
    report["calibration"]["forward"] = forward.conditions();
    report["calibration"]["forward_text"] = forward.text();
  }
  if (!drift.empty()) report["drift"] = drift;
  report["predicted"] = {{"peak_rss_bytes", foretold_peak_bytes(plan, context)},
                         {"seconds", plan.predicted_seconds}};
  uint64_t before = 0, after = 0;
  for (const PlanRow& row : plan.rows) before += row.bytes_before, after += row.bytes_after;
  report["bytes_before"] = before;
  report["bytes_after"] = after;
  report["size_bytes"] = writer->total_bytes();
  report["bits_per_weight"] =
      8.0 * static_cast<double>(after) / static_cast<double>(model->arch().parameters);
  report["cost"] = std::move(cost);
  if (has_target(options)) {
    report["budget"] = plan.details.at("budget");
    report["budget"]["measured_kld"] =
        measured_divergence(*model, options.output, *calibration, options.target_tokens, context);
  }
  if (options.modelfile) report["modelfile"] = modelfile_path(options);
  report_tensors(plan, outcomes, method.name, *writer, report);
  report["container_notes"] = container_notes(*model, options.output);
  report["summary"] = summary_lines(report);
  return report;
}

}  // namespace slmc
