#include "distill/finetune_stage.h"

#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "distill/estimate.h"
#include "distill/loss.h"
#include "distill/loss_mixture.h"
#include "distill/product.h"
#include "distill/side_adapters.h"
#include "distill/sources.h"
#include "formats/family.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

/// What is trained, and from which values.
struct Trained {
  ParameterLayout layout;
  std::shared_ptr<const Lora> lora;
  std::shared_ptr<const SideAdapter> side;  ///< Both null: the weights themselves.
  std::shared_ptr<const WeightSource> start;
};

class FinetuneStage : public Stage {
 public:
  explicit FinetuneStage(FinetuneOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "finetune"; }
  std::string_view summary() const override {
    return "Train a model on text or conversations: adapters, a prompt, upper layers, or all of it";
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
    FinetuneOptions options;
    Sources sources;
    Vocabulary vocabulary;
    Trained trained;
    TrainingJob job;
  };
  FinetuneOptions with_inputs(const Inputs& inputs) const;
  Prepared prepare(const Plan& plan, Context& context) const;
  FinetuneOptions options_;
};

/// As a distillation whose student is the model, for what both share.
DistillOptions as_distillation(const FinetuneOptions& o) {
  DistillOptions d;
  static_cast<ObjectiveOptions&>(d) = o;
  d.student = o.model;
  return d;
}

FinetuneOptions FinetuneStage::with_inputs(const Inputs& inputs) const {
  FinetuneOptions o = options_;
  for (const auto& [key, path] : inputs.paths) {
    if (key == "model") o.model = path;
    if (key == "teacher") o.teacher = path;
    if (key == "output") o.output = path;
  }
  o.output = without_trailing_slash(o.output);
  if (o.teacher.empty()) o.loss = "cross_entropy";
  if (o.save_dtype == "auto") o.save_dtype = tuned_beside(o) && !o.merge ? "f32" : "bf16";
  return o;
}

bool quantized(const WeightSource& weights) {
  for (const TensorSpec& spec : family_by_name(weights.arch().family).tensors(weights.arch()))
    if (!dtype_is_float(weights.view(spec.name).dtype)) return true;
  return false;
}

void check_finetune(const FinetuneOptions& o, const Sources& sources) {
  const std::optional<AdapterKind> beside = tuned_beside(o);
  if (o.model.ends_with(".json") || o.model.starts_with("layers:"))
    throw_usage(cat("model: expected a checkpoint, found '", o.model,
                    "'; slmc distill starts from configurations and layers"));
  if (o.full && beside)
    throw_usage("full: trains the weights themselves; leave out --lora and other adapters");
  if (!o.lora.empty() && !o.init_adapter.empty())
    throw_usage("init_adapter: brings its own rank and targets; leave out --lora");
  if (!o.lora.empty() + !o.adapter.empty() + (o.prompt_tokens > 0) + !o.init_adapter.empty() > 1)
    throw_usage(
        "adapter: one is trained; give one of --lora, --adapter, --prompt-tokens and "
        "--init-adapter");
  if (o.prompt_init != "vocabulary" && o.prompt_tokens == 0)
    throw_usage("prompt_init: says how a prompt begins; give --prompt-tokens N too");
  if (beside && *beside != AdapterKind::kLora) check_side_adapter(o, *beside, sources.student.arch);
  if (!beside && o.merge) throw_usage("merge: there is no adapter to merge with --full");
  if (beside && !o.merge && !o.quantize.empty())
    throw_usage("quantize: an adapter alone is not quantized; give --merge too");
  if (o.recompute_frozen && o.train_layers.empty())
    throw_usage("recompute_frozen: no layer is frozen as a whole; give --train-layers last:N too");
  const bool merged = o.merge && beside == AdapterKind::kLora;
  if (beside && !merged && sources.objective == Objective::kClass)
    throw_unsupported(
        "lora: an adapter's files have no place for the classification head that is trained along; "
        "give --merge, or --full");
  if (o.qat && !o.full)
    throw_usage("qat: trains the weights that are quantized; give --full, or leave it out");
  if (o.qat && !o.train_layers.empty())
    throw_usage("qat: frozen layers would not run as they are written; leave --train-layers out");
  if (quantized(*sources.student.weights) && !o.qat) {
    if (!beside)
      throw_unsupported(cat(o.model,
                            ": the weights are quantized; train an adapter beside them (--lora), "
                            "or convert the model to floats first"));
    if (o.merge && !o.dequantize)
      throw_unsupported(cat(o.model,
                            ": the weights are quantized, and merging writes others; give "
                            "--dequantize to write floats, or leave out --merge"));
  }
}

/// `vocabulary`: null for a plan, which needs no values.
Trained what_is_trained(const FinetuneOptions& o, const Sources& sources, uint64_t seed,
                        const Vocabulary* vocabulary) {
  const Architecture& arch = sources.student.arch;
  const int64_t first = first_trained_layer(o.train_layers, arch.layers);
  Trained trained;
  const std::optional<AdapterKind> beside = tuned_beside(o);
  if (!beside) {
    trained.layout = first > 0 ? upper_layout(arch, first) : parameter_layout(arch);
    trained.start = sources.student.weights;
    return trained;
  }
  if (*beside != AdapterKind::kLora) {
    trained.side = std::make_shared<const SideAdapter>(
        side_adapter(o, *sources.student.weights, vocabulary, seed));
    trained.layout = side_layout(*trained.side);
    trained.start = trained.side->values;
    return trained;
  }
  if (!o.init_adapter.empty()) {
    const LoraAdapter adapter = read_lora(o.init_adapter, arch);
    trained.lora = std::make_shared<const Lora>(adapter.lora);
    trained.start = adapter.values;
  } else {
    trained.lora = std::make_shared<const Lora>(parse_lora(o.lora, arch, first));
    if (vocabulary != nullptr) trained.start = initial_lora(*trained.lora, arch, seed);
  }
  if (o.keep_sparsity && trained.lora->dropout > 0)
    throw_usage(
        "dropout: with --keep-sparsity the adapter is trained inside the weights, which have no "
        "input of its own to drop; leave one of the two out");
  trained.layout = lora_layout(*trained.lora);
  if (arch.head == Head::kClassifier) {
    add_head(arch, trained.layout);
    if (trained.start) trained.start = overlaid(trained.start, sources.student.weights);
  }
  return trained;
}

PlanRow plan_row(const TensorSpec& spec, const WeightSource& weights, const Trained& trained,
                 const FinetuneOptions& o, DType written) {
  const TensorView view = weights.view(spec.name);
  const bool writes_model = (trained.lora == nullptr && trained.side == nullptr) || o.merge;
  PlanRow row{.tensor = spec.name,
              .file_name = spec.hf.name,
              .shape = spec.shape,
              .new_shape = spec.shape,
              .from = std::string(dtype_name(view.dtype)),
              .to = "",
              .reason = "frozen",
              .bytes_before = view.bytes()};
  if (trained.layout.has(spec.name)) row.reason = "trained";
  if (trained.lora != nullptr)
    for (const LoraTarget& target : trained.lora->targets)
      for (const std::string& tensor : target.tensors)
        if (tensor == spec.name) row.reason = cat("adapted, rank ", trained.lora->rank);
  row.to = "not written";
  if (writes_model) plan_written(spec, written, o.output, row);
  return row;
}

/// Whether what the frozen layers give of `windows` windows is kept for later epochs.
bool keeps_frozen_states(const FinetuneOptions& o, const Architecture& arch, int64_t passes,
                         int64_t windows) {
  // Every epoch masks other tokens.
  return first_trained_layer(o.train_layers, arch.layers) > 0 && !o.recompute_frozen &&
         passes > windows && !compares_hidden(parse_losses(o.loss)) && arch.head != Head::kMasked;
}

Plan FinetuneStage::plan(const Inputs& inputs) const {
  if (!inputs.on_cpu()) check_torch_device(*inputs.context);
  const FinetuneOptions o = with_inputs(inputs);
  DistillOptions d = as_distillation(o);
  const Sources sources = open_sources(d, 0, false);
  check_options(d, sources);
  check_finetune(o, sources);
  check_scheme(o.output, o.quantize);
  take_from_cache(d, sources);
  const Trained trained = what_is_trained(o, sources, 0, nullptr);
  const Architecture& arch = sources.student.arch;
  Plan plan;
  plan.stage = "finetune";
  plan.output = o.output;
  plan.details = {{"model", o.model}, {"teacher", o.teacher}, {"loss", o.loss}};
  const StoredTypes types = written_types(arch, o.quantize, dtype_from_name(o.save_dtype));
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch)) {
    plan.rows.push_back(plan_row(spec, *sources.student.weights, trained, o, types.at(spec.name)));
    plan.output_bytes += plan.rows.back().bytes_after;
  }
  if (tuned_beside(o) && !o.merge)
    plan.output_bytes = dtype_row_bytes(dtype_from_name(o.save_dtype), trained.layout.total);
  const int64_t window = window_tokens(d, sources);
  const StepShape shape =
      step_shape(d, trained.layout.total, window, inputs.ranks, inputs.on_cpu());
  const int64_t windows = expected_windows(d, sources), steps = count_steps(d, windows, window);
  const bool keeps = keeps_frozen_states(o, arch, steps * shape.windows_per_step, windows);
  const TrainingSize size{
      .student = &arch,
      .teacher = sources.uses_teacher && sources.teacher ? &sources.teacher->arch() : nullptr,
      .tokens = steps * shape.windows_per_step * window,
      .micro_tokens = shape.micro_windows * window,
      .lanes = shape.lanes,
      .text_bytes = text_bytes(d),
      .keep_sparsity = o.keep_sparsity,
      .trained = trained.layout.total,
      .first_layer = first_trained_layer(o.train_layers, arch.layers),
      .frozen_tokens = keeps ? windows * window : 0,
      .compared = compared_floats(d, sources),
      .ranks = inputs.ranks,
      .rounded = o.qat,
      .recompute = o.recompute,
      .on_cpu = inputs.on_cpu()};
  plan.predicted_peak_bytes = training_memory(size);
  plan.predicted_seconds = training_seconds(size);
  plan.notes.push_back(
      cat("trained: ", human_count(static_cast<uint64_t>(trained.layout.total)), " of ",
          human_count(static_cast<uint64_t>(arch.parameters)), " parameters, ",
          trained.side != nullptr   ? side_note(*trained.side)
          : trained.lora == nullptr ? std::string("weights of the model")
                                    : cat("adapters of rank ", trained.lora->rank, ", alpha ",
                                          trained.lora->alpha, ", dropout ", trained.lora->dropout,
                                          " on ", trained.lora->targets.size(), " matrices")));
  if (keeps)
    plan.notes.push_back(
        cat("What the frozen layers give is kept beside the output until the end: about ",
            human_bytes(static_cast<uint64_t>(windows * window * arch.hidden) * sizeof(float)),
            " (--recompute-frozen keeps nothing)."));
  plan.notes.push_back(teacher_note(d, sources));
  plan.notes.push_back(steps_note(d, shape, steps, window_text(d, sources)));
  return plan;
}

/// The product: the adapter's files, or the model with what was trained in it.
TrainingProduct product_of(const FinetuneOptions& o, const Sources& sources, const Trained& trained,
                           const TrainingJob& job, const Vocabulary& vocabulary,
                           const Context& context) {
  const HeldOut held_out{.text = o.eval_text,
                         .tokens = o.eval_tokens,
                         .context = o.context,
                         .labelled = sources.objective == Objective::kClass,
                         .teacher = sources.teacher};
  const std::shared_ptr<const WeightSource> base = sources.student.weights;
  const DType dtype = dtype_from_name(o.save_dtype);
  if (tuned_beside(o) && !o.merge) {
    const std::shared_ptr<const Model> model = sources.student.model;
    AdapterExport files{.write = {}, .base = model, .path = o.output, .held_out = held_out};
    files.write = [model, dtype, lora = trained.lora, side = trained.side](
                      const WeightSource& values, const std::string& path) {
      if (lora != nullptr)
        return write_lora(adapter_of(*lora, values), model->arch(), path, model->path(), dtype,
                          true);
      SideAdapter adapter = *side;
      adapter.values = borrowed(values);
      write_side_adapter(adapter, model->arch(), path, model->path(), dtype, true);
    };
    return adapter_product(std::move(files), context);
  }
  const bool keep_zeros = o.keep_sparsity;
  const auto assemble = [base, lora = trained.lora, keep_zeros](
                            const WeightSource& values) -> std::shared_ptr<const WeightSource> {
    if (lora == nullptr) return overlaid(borrowed(values), base);
    // A classification head is among the values.
    return overlaid(borrowed(values),
                    std::make_shared<MergedWeights>(base, adapter_of(*lora, values), keep_zeros));
  };
  ModelExport product;
  product.assemble = assemble;
  product.output.path = o.output;
  product.output.config = sources.student.config;
  product.output.assets = vocabulary.assets;
  product.output.name = fs::path(o.output).stem().string();
  product.output.metadata = {{"slmc.stage", "finetune"}};
  product.dtype = dtype;
  product.scheme = o.quantize;
  product.stored = job.stored;
  product.learned_scales = job.learned_scales;
  product.held_out = held_out;
  return model_product(std::move(product), context);
}

FinetuneStage::Prepared FinetuneStage::prepare(const Plan& plan, Context& context) const {
  FinetuneOptions o = with_inputs({});
  o.model = plan.details.value("model", o.model);
  o.teacher = plan.details.value("teacher", o.teacher);
  o.loss = plan.details.value("loss", o.loss);
  o.output = plan.output;
  DistillOptions d = as_distillation(o);
  Sources sources = open_sources(d, context.seed, true);
  check_options(d, sources);
  check_finetune(o, sources);
  check_scheme(o.output, o.quantize);
  take_from_cache(d, sources);
  Vocabulary vocabulary = vocabulary_of(d, sources);
  Trained trained = what_is_trained(o, sources, context.seed, &vocabulary);

  TrainingJob job = begin_job(d, sources, vocabulary, context);
  job.layout = trained.layout;
  job.lora = trained.lora;
  job.start = trained.start;
  if (trained.side != nullptr)
    job.student = std::make_shared<SideWeights>(sources.student.weights, *trained.side);
  add_hidden_states(d, sources, context, job);
  add_learned_scales(d, job);
  load_data(d, sources, vocabulary, context, job);
  fill_job(
      d,
      step_shape(d, trained.layout.total, job.data.context, context.ranks.size, context.on_cpu()),
      job);
  if (trained.side != nullptr) job.keep_sparsity = false;  // The weights stay as they are anyway.
  if (keeps_frozen_states(o, sources.student.arch, job.steps * job.windows_per_step,
                          job.data.windows)) {
    // On the output's disk, whose folder a dry run does not make.
    fs::path folder = fs::absolute(o.output).parent_path();
    while (!fs::exists(folder)) folder = folder.parent_path();
    job.frozen_states_folder = folder.string();
  }
  job.conditions = run_conditions(d, sources, job, context);
  job.conditions["options"]["lora"] = o.lora;
  job.conditions["options"]["adapter"] = o.adapter;
  job.conditions["options"]["prompt"] = cat(o.prompt_tokens, " ", o.prompt_init);
  job.conditions["options"]["init_adapter"] = o.init_adapter;
  job.conditions["options"]["train_layers"] = o.train_layers;
  return {std::move(o), std::move(sources), std::move(vocabulary), std::move(trained),
          std::move(job)};
}

Plan FinetuneStage::refine(Plan plan, Context& context) {
  if (context.dry_run != "measured") return plan;
  TorchModule& torch = torch_module(context);
  take_forecast(torch.forecast(prepare(plan, context).job, context), plan);
  return plan;
}

Report FinetuneStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  if (context.ranks.first()) check_output(plan.output, context.force);
  TorchModule& torch = torch_module(context);
  auto [o, sources, vocabulary, trained, job] = prepare(plan, context);
  job.product = product_of(o, sources, trained, job, vocabulary, context);
  progress_of(context).note(
      cat(human_count(static_cast<uint64_t>(trained.layout.total)), " parameters to train; ",
          human_count(static_cast<uint64_t>(job.data.tokens)), " tokens in ",
          human_count(static_cast<uint64_t>(job.data.documents)), " documents; ", job.steps,
          " steps of ", job.windows_per_step * job.data.context));

  const Report training = torch.train(job, context);
  if (!context.ranks.first()) return training;
  Report report = make_report(*this, plan, 0.0, context);
  report["options"]["loss"] = o.loss;
  report["provenance"]["libtorch"] = torch.version();
  report["trained_parameters"] = trained.layout.total;
  report["dequantized"] = quantized(*sources.student.weights) && o.merge;
  describe_training(training, job, as_distillation(o), report);
  const std::shared_ptr<const Model> base = sources.student.model;
  const bool adapter = tuned_beside(o) && !o.merge;
  report["logits_difference_libtorch"] =
      adapter ? verify_network(*with_adapter(base, o.output), o.output, context)
              : verify_network(*Model::open(o.output), o.output, context);
  report["seconds"] = now_seconds() - started;
  report["peak_rss_bytes"] = peak_rss_bytes();
  return report;
}

}  // namespace

std::unique_ptr<Stage> make_finetune_stage(FinetuneOptions options) {
  return std::make_unique<FinetuneStage>(std::move(options));
}

}  // namespace slmc
