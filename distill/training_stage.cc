#include "distill/training_stage.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/evaluate.h"
#include "distill/estimate.h"
#include "distill/loss_mixture.h"
#include "formats/family.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

Sources checked_sources(TrainingRun& run, uint64_t seed, bool allocate) {
  DistillOptions& o = run.options();
  Sources sources = open_sources(o, seed, allocate);
  check_options(o, sources);
  run.check(sources);
  check_scheme(o.output, o.quantize);
  take_from_cache(o, sources);
  if (o.eval_tokens > 0) o.eval_tokens = std::max(o.eval_tokens, o.context);
  return sources;
}

/// What is measured at the end must not fail there for want of text.
void check_held_out_text(const DistillOptions& o, const Sources& sources,
                         const Vocabulary& vocabulary) {
  if (o.eval_text.empty() || sources.objective != Objective::kNextToken) return;
  const int64_t tokens =
      text_tokens(*vocabulary.tokenizer, vocabulary.assets, o.eval_text, o.eval_tokens);
  if (tokens < o.context)
    throw_usage(cat("eval_text: ", o.eval_text, " has ", tokens, " tokens, less than a window of ",
                    o.context, "; give more text or a smaller --context"));
}

PlanRow source_row(const TensorSpec& spec, const WeightSource& weights) {
  PlanRow row{.tensor = spec.name,
              .file_name = spec.hf.name,
              .shape = spec.shape,
              .new_shape = spec.shape,
              .from = "random",
              .to = "not written",
              .reason = ""};
  if (!weights.has(spec.name)) return row;  // A plan makes no random ones.
  const TensorView view = weights.view(spec.name);
  row.from = dtype_name(view.dtype);
  row.bytes_before = view.bytes();
  return row;
}

/// Whether what the frozen layers give of `windows` windows is kept for later epochs; `passes`: of
/// a window, all counted.
bool keeps_frozen_states(const DistillOptions& o, const Trained& trained, const Architecture& arch,
                         int64_t passes, int64_t windows) {
  // Every epoch masks other tokens.
  return trained.first_layer > 0 && !trained.recompute_frozen && passes > windows &&
         !compares_hidden(parse_losses(o.loss)) && arch.head != Head::kMasked;
}

/// The whole model that a run exports, but for how it is assembled.
ModelExport model_export(const DistillOptions& o, const Sources& sources,
                         const Vocabulary& vocabulary, const TrainingJob& job) {
  ModelExport model;
  model.output.path = o.output;
  model.output.config = sources.student.config;
  model.output.assets = vocabulary.assets;
  model.output.name = fs::path(o.output).stem().string();
  model.dtype = dtype_from_name(o.save_dtype);
  model.scheme = o.quantize;
  model.stored = job.stored;
  model.learned_scales = job.learned_scales;
  model.held_out = {.text = o.eval_text,
                    .tokens = o.eval_tokens,
                    .context = o.context,
                    .labelled = sources.objective == Objective::kClass,
                    .teacher = sources.teacher};
  return model;
}

}  // namespace

std::unique_ptr<TrainingRun> TrainingStage::begin_with(
    const std::map<std::string, std::string>& inputs) const {
  std::unique_ptr<TrainingRun> run = begin();
  const std::map<std::string, std::string*> named = run->inputs();
  for (const auto& [name, value] : inputs)
    if (const auto found = named.find(name); found != named.end()) *found->second = value;
  DistillOptions& o = run->options();
  o.output = without_trailing_slash(o.output);
  if (o.teacher.empty()) {
    if (needs_teacher(parse_losses(o.loss)) && o.loss != DistillOptions().loss)
      throw_usage(cat("loss: ", o.loss, " compares with a teacher; give --teacher MODEL|CACHE, or ",
                      "leave --loss out to learn from the text alone"));
    o.loss = "cross_entropy";
  }
  run->complete();
  return run;
}

Plan TrainingStage::plan(const Inputs& inputs) const {
  if (!inputs.on_cpu()) check_torch_device(*inputs.context);
  const std::unique_ptr<TrainingRun> run = begin_with(inputs.paths);
  const DistillOptions& o = run->options();
  const Sources sources = checked_sources(*run, 0, false);
  const Trained trained = run->trained(sources, 0, nullptr);
  const Architecture& arch = sources.student.arch;
  Plan plan;
  plan.stage = name();
  plan.output = o.output;
  for (const auto& [name, value] : run->inputs())
    if (name != "output") plan.details[name] = *value;
  const bool writes_model = run->writes_model();
  const DType written = dtype_from_name(o.save_dtype);
  const StoredTypes types = written_types(arch, o.quantize, written);
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch)) {
    PlanRow row = source_row(spec, *sources.student.weights);
    row.reason = run->tensor_note(spec, sources, trained);
    if (writes_model) plan_written(spec, types.at(spec.name), o.output, row);
    plan.output_bytes += row.bytes_after;
    plan.rows.push_back(std::move(row));
  }
  if (!writes_model) plan.output_bytes = dtype_row_bytes(written, trained.layout.total);
  const int64_t window = window_tokens(o, sources);
  const StepShape shape =
      step_shape(o, trained.layout.total, window, inputs.ranks, inputs.on_cpu());
  const int64_t windows = expected_windows(o, sources), steps = count_steps(o, windows, window);
  const bool keeps = keeps_frozen_states(o, trained, arch, steps * shape.windows_per_step, windows);
  const TrainingSize size{
      .student = &arch,
      .teacher = sources.uses_teacher && sources.teacher ? &sources.teacher->arch() : nullptr,
      .tokens = steps * shape.windows_per_step * window,
      .micro_tokens = shape.micro_windows * window,
      .lanes = shape.lanes,
      .text_bytes = text_bytes(o),
      .keep_sparsity = o.keep_sparsity,
      .trained = trained.layout.total,
      .first_layer = trained.first_layer,
      .frozen_tokens = keeps ? windows * window : 0,
      .compared = compared_floats(o, sources),
      .ranks = inputs.ranks,
      .rounded = o.qat,
      .recompute = o.recompute,
      .samples = o.on_policy.share > 0,
      .on_cpu = inputs.on_cpu()};
  plan.predicted_peak_bytes = training_memory(size);
  plan.predicted_seconds = training_seconds(size);
  plan.notes.push_back(run->trained_note(sources, trained));
  if (keeps)
    plan.notes.push_back(
        cat("What the frozen layers give is kept beside the output until the end: about ",
            human_bytes(static_cast<uint64_t>(windows * window * arch.hidden) * sizeof(float)),
            " (--recompute-frozen keeps nothing)."));
  plan.notes.push_back(teacher_note(o, sources));
  plan.notes.push_back(steps_note(o, shape, steps, window_text(o, sources)));
  return plan;
}

TrainingStage::Prepared TrainingStage::prepare(const Plan& plan, Context& context) const {
  std::map<std::string, std::string> inputs{{"output", plan.output}};
  for (const auto& [name, value] : plan.details.items()) inputs[name] = value.get<std::string>();
  std::unique_ptr<TrainingRun> run = begin_with(inputs);
  const DistillOptions& o = run->options();
  Sources sources = checked_sources(*run, context.seed, true);
  Vocabulary vocabulary = vocabulary_of(o, sources);
  check_held_out_text(o, sources, vocabulary);
  Trained trained = run->trained(sources, context.seed, &vocabulary);

  TrainingJob job = begin_job(o, sources, vocabulary, context);
  job.layout = trained.layout;
  job.lora = trained.lora;
  job.start = trained.start;
  if (trained.side != nullptr)
    job.student = std::make_shared<SideWeights>(sources.student.weights, *trained.side);
  add_hidden_states(o, sources, context, job);
  add_learned_scales(o, job);
  load_data(o, sources, vocabulary, context, job);
  fill_job(
      o,
      step_shape(o, trained.layout.total, job.data.context, context.ranks.size, context.on_cpu()),
      job);
  if (trained.side != nullptr) job.keep_sparsity = false;  // The weights stay as they are anyway.
  if (keeps_frozen_states(o, trained, sources.student.arch, job.steps * job.windows_per_step,
                          job.data.windows)) {
    // On the output's disk, whose folder a dry run does not make.
    fs::path folder = fs::absolute(o.output).parent_path();
    while (!fs::exists(folder)) folder = folder.parent_path();
    job.frozen_states_folder = folder.string();
  }
  job.conditions = run_conditions(o, sources, job, context);
  job.conditions["options"].update(run->conditions());
  job.conditions["product"]["model"] = run->writes_model();
  return {std::move(run), std::move(sources), std::move(vocabulary), std::move(trained),
          std::move(job)};
}

Plan TrainingStage::refine(Plan plan, Context& context) {
  if (context.dry_run != "measured") return plan;
  TorchModule& torch = torch_module(context);
  take_forecast(torch.forecast(prepare(plan, context).job, context), plan);
  return plan;
}

Report TrainingStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  if (context.ranks.first()) check_output(plan.output, context.force);
  TorchModule& torch = torch_module(context);
  auto [run, sources, vocabulary, trained, job] = prepare(plan, context);
  const DistillOptions& o = run->options();
  job.product = run->product(sources, trained, model_export(o, sources, vocabulary, job), context);
  progress_of(context).note(
      cat(human_count(static_cast<uint64_t>(trained.layout.total)), " parameters to train; ",
          human_count(static_cast<uint64_t>(job.data.tokens)), " tokens in ",
          human_count(static_cast<uint64_t>(job.data.documents)), " documents; ", job.steps,
          " steps of ", job.windows_per_step * job.data.context, " tokens"));

  const Report training = torch.train(job, context);
  if (!context.ranks.first()) return training;
  Report report = make_report(*this, plan, 0.0, context);
  report["options"]["loss"] = o.loss;
  report["provenance"]["libtorch"] = torch.version();
  run->describe(sources, trained, report);
  describe_training(training, job, o, report);
  report["logits_difference_libtorch"] = verify_network(*run->written(sources), o.output, context);
  report["seconds"] = now_seconds() - started;
  report["peak_rss_bytes"] = peak_rss_bytes();
  return report;
}

}  // namespace slmc
