#include "distill/finetune_stage.h"

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "distill/side_adapters.h"
#include "distill/training_stage.h"
#include "formats/family.h"

namespace slmc {
namespace {

class FinetuneRun : public TrainingRun {
 public:
  explicit FinetuneRun(FinetuneOptions options) : options_(std::move(options)) {}
  DistillOptions& options() override { return options_; }
  std::map<std::string, std::string*> inputs() override {
    return {{"model", &options_.student},
            {"teacher", &options_.teacher},
            {"loss", &options_.loss},
            {"output", &options_.output}};
  }
  void complete() override {
    if (options_.save_dtype == "auto") options_.save_dtype = writes_model() ? "bf16" : "f32";
  }
  void check(const Sources& sources) const override;
  Trained trained(const Sources& sources, uint64_t seed,
                  const Vocabulary* vocabulary) const override;
  std::string tensor_note(const TensorSpec& spec, const Sources& sources,
                          const Trained& trained) const override;
  std::string trained_note(const Sources& sources, const Trained& trained) const override;
  Json conditions() const override;
  bool writes_model() const override { return !tuned_beside(options_) || options_.merge; }
  TrainingProduct product(const Sources& sources, const Trained& trained, ModelExport model,
                          const Context& context) const override;
  std::shared_ptr<const WeightSource> written(const Sources& sources) const override;
  void describe(const Sources& sources, const Trained& trained, Report& report) const override;

 private:
  FinetuneOptions options_;
};

bool quantized(const WeightSource& weights) {
  for (const TensorSpec& spec : family_by_name(weights.arch().family).tensors(weights.arch()))
    if (!dtype_is_float(weights.view(spec.name).dtype)) return true;
  return false;
}

void FinetuneRun::check(const Sources& sources) const {
  const FinetuneOptions& o = options_;
  const std::optional<AdapterKind> beside = tuned_beside(o);
  if (o.student.ends_with(".json") || o.student.starts_with("layers:"))
    throw_usage(cat("model: expected a checkpoint, found '", o.student,
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
  if (o.keep_sparsity && beside == AdapterKind::kLora && !o.merge)
    throw_usage(
        "keep_sparsity: the adapter is trained inside the weights that are not 0, and one that is "
        "written alone adds to all of them; give --merge too");
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
      throw_unsupported(cat(o.student,
                            ": the weights are quantized; train an adapter beside them (--lora), "
                            "or convert the model to floats first"));
    if (o.merge && !o.dequantize)
      throw_unsupported(cat(o.student,
                            ": the weights are quantized, and merging writes others; give "
                            "--dequantize to write floats, or leave out --merge"));
  }
}

Trained FinetuneRun::trained(const Sources& sources, uint64_t seed,
                             const Vocabulary* vocabulary) const {
  const FinetuneOptions& o = options_;
  const Architecture& arch = sources.student.arch;
  const int64_t first = first_trained_layer(o.train_layers, arch.layers);
  Trained trained{.layout = {}, .first_layer = first, .recompute_frozen = o.recompute_frozen};
  const std::optional<AdapterKind> beside = tuned_beside(o);
  if (!beside) {
    trained.layout = first > 0 ? upper_layout(arch, first) : parameter_layout(arch);
    trained.start = sources.student.weights;
    return trained;
  }
  if (*beside != AdapterKind::kLora) {
    if (first > 0 && !o.init_adapter.empty())
      throw_usage("train_layers: the adapter of --init-adapter has its own layers; leave it out");
    trained.side = std::make_shared<const SideAdapter>(
        side_adapter(o, *sources.student.weights, vocabulary, seed));
    trained.layout = side_layout(*trained.side);
    trained.start = trained.side->values;
    return trained;
  }
  if (!o.init_adapter.empty()) {
    const LoraAdapter adapter = read_lora(o.init_adapter, arch);
    for (const LoraTarget& target : adapter.lora.targets)
      if (layer_of(target) < first)
        throw_usage(cat("train_layers: the adapter of --init-adapter changes ",
                        target.tensors.front(), " too, which would be frozen"));
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

std::string FinetuneRun::tensor_note(const TensorSpec& spec, const Sources& /*sources*/,
                                     const Trained& trained) const {
  if (trained.lora != nullptr)
    for (const LoraTarget& target : trained.lora->targets)
      for (const std::string& tensor : target.tensors)
        if (tensor == spec.name) return cat("adapted, rank ", trained.lora->rank);
  return trained.layout.has(spec.name) ? "trained" : "frozen";
}

std::string FinetuneRun::trained_note(const Sources& sources, const Trained& trained) const {
  return cat("trained: ", human_count(static_cast<uint64_t>(trained.layout.total)), " of ",
             human_count(static_cast<uint64_t>(sources.student.arch.parameters)), " parameters, ",
             trained.side != nullptr ? side_note(*trained.side)
             : trained.lora == nullptr
                 ? std::string("weights of the model")
                 : cat("adapters of rank ", trained.lora->rank, ", alpha ", trained.lora->alpha,
                       ", dropout ", trained.lora->dropout, " on ", trained.lora->targets.size(),
                       " matrices"));
}

Json FinetuneRun::conditions() const {
  const FinetuneOptions& o = options_;
  return {{"lora", o.lora},
          {"adapter", o.adapter},
          {"prompt", cat(o.prompt_tokens, " ", o.prompt_init)},
          {"init_adapter", o.init_adapter},
          {"train_layers", o.train_layers}};
}

TrainingProduct FinetuneRun::product(const Sources& sources, const Trained& trained,
                                     ModelExport model, const Context& context) const {
  if (!writes_model()) {
    const std::shared_ptr<const Model> base = sources.student.model;
    AdapterExport files{.write = {},
                        .base = base,
                        .path = model.output.path,
                        .held_out = std::move(model.held_out)};
    files.write = [base, dtype = model.dtype, lora = trained.lora, side = trained.side](
                      const WeightSource& values, const std::string& path) {
      if (lora != nullptr)
        return write_lora(adapter_of(*lora, values), base->arch(), path, base->path(), dtype, true);
      SideAdapter adapter = *side;
      adapter.values = borrowed(values);
      write_side_adapter(adapter, base->arch(), path, base->path(), dtype, true);
    };
    return adapter_product(std::move(files), context);
  }
  model.assemble = [base = sources.student.weights, lora = trained.lora,
                    keep_zeros = options_.keep_sparsity](
                       const WeightSource& values) -> std::shared_ptr<const WeightSource> {
    if (lora == nullptr) return overlaid(borrowed(values), base);
    // A classification head is among the values.
    return overlaid(borrowed(values),
                    std::make_shared<MergedWeights>(base, adapter_of(*lora, values), keep_zeros));
  };
  model.output.metadata = {{"slmc.stage", "finetune"}};
  return model_product(std::move(model), context);
}

std::shared_ptr<const WeightSource> FinetuneRun::written(const Sources& sources) const {
  if (writes_model()) return Model::open(options_.output);
  return with_adapter(sources.student.model, options_.output);
}

void FinetuneRun::describe(const Sources& sources, const Trained& trained, Report& report) const {
  report["trained_parameters"] = trained.layout.total;
  report["dequantized"] = quantized(*sources.student.weights) && options_.merge;
}

class FinetuneStage : public TrainingStage {
 public:
  explicit FinetuneStage(FinetuneOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "finetune"; }
  std::string_view summary() const override {
    return "Train a model on text or conversations: adapters, a prompt, upper layers, or all of it";
  }
  void visit(Fields& fields) override { visit_options(fields, options_); }

 protected:
  std::unique_ptr<TrainingRun> begin() const override {
    return std::make_unique<FinetuneRun>(options_);
  }

 private:
  FinetuneOptions options_;
};

}  // namespace

std::unique_ptr<Stage> make_finetune_stage(FinetuneOptions options) {
  return std::make_unique<FinetuneStage>(std::move(options));
}

}  // namespace slmc
