#include "distill/stage.h"

#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "distill/estimate.h"
#include "distill/product.h"
#include "distill/sources.h"
#include "distill/student.h"
#include "distill/training.h"
#include "distill/vocabulary.h"
#include "formats/family.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

class DistillStage : public Stage {
 public:
  explicit DistillStage(DistillOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "distill"; }
  std::string_view summary() const override {
    return "Train a smaller model on text, with a teacher's distributions or alone";
  }
  void visit(Fields& fields) override { visit_options(fields, options_); }
  Plan plan(const Inputs& inputs) const override;
  Plan refine(Plan plan, Context& context) override;
  Report run(const Plan& plan, Context& context) override;
  bool uses_device() const override { return true; }
  bool shares_work() const override { return true; }

 private:
  /// A run without its product.
  struct Prepared {
    DistillOptions options;
    Sources sources;
    Vocabulary vocabulary;
    TrainingJob job;
  };
  DistillOptions with_inputs(const Inputs& inputs) const;
  Prepared prepare(const Plan& plan, Context& context) const;

  DistillOptions options_;
};

DistillOptions DistillStage::with_inputs(const Inputs& inputs) const {
  DistillOptions o = options_;
  for (const auto& [key, path] : inputs.paths) {
    if (key == "teacher") o.teacher = path;
    if (key == "student") o.student = path;
    if (key == "tokenizer") o.tokenizer = path;
    if (key == "output") o.output = path;
  }
  o.output = without_trailing_slash(o.output);
  if (o.teacher.empty()) o.loss = "cross_entropy";
  if (o.save_dtype == "auto") o.save_dtype = "bf16";
  return o;
}

Plan DistillStage::plan(const Inputs& inputs) const {
  if (!inputs.on_cpu()) check_torch_device(*inputs.context);
  DistillOptions o = with_inputs(inputs);
  const Sources sources = open_sources(o, 0, false);
  require_float_weights(o, sources);
  check_options(o, sources);
  check_scheme(o.output, o.quantize);
  take_from_cache(o, sources);
  Plan plan;
  plan.stage = "distill";
  plan.output = o.output;
  plan.details = {
      {"teacher", o.teacher}, {"student", o.student}, {"tokenizer", o.tokenizer}, {"loss", o.loss}};
  const StoredTypes types =
      written_types(sources.student.arch, o.quantize, dtype_from_name(o.save_dtype));
  const Model* model = sources.student.model.get();
  for (const TensorSpec& spec :
       family_by_name(sources.student.arch.family).tensors(sources.student.arch)) {
    PlanRow row{.tensor = spec.name,
                .file_name = spec.hf.name,
                .shape = spec.shape,
                .new_shape = spec.shape,
                .from = "random",
                .to = "",
                .reason = model != nullptr ? "trained on" : "trained from random weights"};
    if (sources.student.weights->has(spec.name)) {
      const TensorView view = sources.student.weights->view(spec.name);
      row.from = dtype_name(view.dtype);
      row.bytes_before = view.bytes();
    }
    if (!sources.student.layers.empty()) row.reason = "starts as the teacher's";
    plan_written(spec, types.at(spec.name), o.output, row);
    plan.output_bytes += row.bytes_after;
    plan.rows.push_back(std::move(row));
  }
  const int64_t window = window_tokens(o, sources);
  const StepShape shape =
      step_shape(o, sources.student.arch.parameters, window, inputs.ranks, inputs.on_cpu());
  const int64_t steps = count_steps(o, expected_windows(o, sources), window);
  const TrainingSize size{
      .student = &sources.student.arch,
      .teacher = sources.uses_teacher && sources.teacher ? &sources.teacher->arch() : nullptr,
      .tokens = steps * shape.windows_per_step * window,
      .micro_tokens = shape.micro_windows * window,
      .lanes = shape.lanes,
      .text_bytes = text_bytes(o),
      .keep_sparsity = o.keep_sparsity,
      .compared = compared_floats(o, sources),
      .ranks = inputs.ranks,
      .rounded = o.qat,
      .recompute = o.recompute,
      .samples = o.on_policy.share > 0,
      .on_cpu = inputs.on_cpu()};
  plan.predicted_peak_bytes = training_memory(size);
  plan.predicted_seconds = training_seconds(size);
  plan.notes.push_back(cat(
      "student: ", human_count(static_cast<uint64_t>(sources.student.arch.parameters)),
      " parameters in ", sources.student.arch.layers, " layers, from ", sources.student.origin));
  plan.notes.push_back(teacher_note(o, sources));
  plan.notes.push_back(steps_note(o, shape, steps, window_text(o, sources)));
  return plan;
}

DistillStage::Prepared DistillStage::prepare(const Plan& plan, Context& context) const {
  DistillOptions o = with_inputs({});
  o.teacher = plan.details.value("teacher", o.teacher);
  o.student = plan.details.value("student", o.student);
  o.tokenizer = plan.details.value("tokenizer", o.tokenizer);
  o.loss = plan.details.value("loss", o.loss);
  o.output = plan.output;
  Sources sources = open_sources(o, context.seed, true);
  require_float_weights(o, sources);
  check_options(o, sources);
  check_scheme(o.output, o.quantize);
  take_from_cache(o, sources);
  Vocabulary vocabulary = vocabulary_of(o, sources);
  TrainingJob job = begin_job(o, sources, vocabulary, context);
  job.start = job.student;
  job.layout = parameter_layout(sources.student.arch);
  add_hidden_states(o, sources, context, job);
  add_learned_scales(o, job);
  load_data(o, sources, vocabulary, context, job);
  fill_job(o,
           step_shape(o, sources.student.arch.parameters, job.data.context, context.ranks.size,
                      context.on_cpu()),
           job);
  job.conditions = run_conditions(o, sources, job, context);
  return {std::move(o), std::move(sources), std::move(vocabulary), std::move(job)};
}

Plan DistillStage::refine(Plan plan, Context& context) {
  if (context.dry_run != "measured") return plan;
  TorchModule& torch = torch_module(context);
  take_forecast(torch.forecast(prepare(plan, context).job, context), plan);
  return plan;
}

Report DistillStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  if (context.ranks.first()) check_output(plan.output, context.force);
  TorchModule& torch = torch_module(context);
  auto [o, sources, vocabulary, job] = prepare(plan, context);
  const std::shared_ptr<const WeightSource> student = job.student;
  ModelExport product;
  product.assemble = [student](const WeightSource& values) {
    return overlaid(borrowed(values), student);
  };
  product.output.path = o.output;
  product.output.config = sources.student.config;
  product.output.assets = vocabulary.assets;
  product.output.name = fs::path(o.output).stem().string();
  product.output.metadata = {{"slmc.stage", "distill"}, {"slmc.student", sources.student.origin}};
  product.dtype = dtype_from_name(o.save_dtype);
  product.scheme = o.quantize;
  product.stored = job.stored;
  product.learned_scales = job.learned_scales;
  product.held_out = {.text = o.eval_text,
                      .tokens = o.eval_tokens,
                      .context = o.context,
                      .labelled = sources.objective == Objective::kClass,
                      .teacher = sources.teacher};
  job.product = model_product(std::move(product), context);
  progress_of(context).note(cat(human_count(static_cast<uint64_t>(job.data.tokens)), " tokens in ",
                                human_count(static_cast<uint64_t>(job.data.documents)),
                                " documents; ", job.steps, " steps of ",
                                job.windows_per_step * job.data.context, " tokens"));

  const Report training = torch.train(job, context);
  if (!context.ranks.first()) return training;
  Report report = make_report(*this, plan, 0.0, context);
  report["options"]["loss"] = o.loss;
  report["provenance"]["libtorch"] = torch.version();
  report["student"] = {{"origin", sources.student.origin},
                       {"parameters", sources.student.arch.parameters},
                       {"layers", sources.student.layers}};
  describe_training(training, job, o, report);
  report["logits_difference_libtorch"] = verify_network(*Model::open(o.output), o.output, context);
  report["seconds"] = now_seconds() - started;
  report["peak_rss_bytes"] = peak_rss_bytes();
  return report;
}

}  // namespace

std::unique_ptr<Stage> make_distill_stage(DistillOptions options) {
  return std::make_unique<DistillStage>(std::move(options));
}

}  // namespace slmc
