#include "distill/stage.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/evaluate.h"
#include "distill/estimate.h"
#include "distill/loss.h"
#include "distill/sources.h"
#include "distill/student.h"
#include "distill/training.h"
#include "distill/vocabulary.h"
#include "formats/family.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMicroTokens = 1024;
constexpr int64_t kHeadRows = 256;

class DistillStage : public Stage {
 public:
  explicit DistillStage(DistillOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "distill"; }
  std::string_view summary() const override {
    return "Train a smaller model on text, with a teacher's distributions or alone";
  }
  void visit(Fields& fields) override { visit_options(fields, options_); }
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;

 private:
  DistillOptions with_inputs(const Inputs& inputs) const;

  DistillOptions options_;
};

/// The options that decide results, for the checkpoint.
Json result_options(const DistillOptions& o) {
  return {{"student", o.student},
          {"loss", o.loss},
          {"ce_weight", o.ce_weight},
          {"temperature", o.temperature},
          {"steps", o.steps},
          {"tokens", o.tokens},
          {"epochs", o.epochs},
          {"batch", o.batch},
          {"accumulation", o.accumulation},
          {"context", o.context},
          {"micro_batch", o.micro_batch},
          {"lanes", o.lanes},
          {"lr", o.lr},
          {"min_lr_ratio", o.min_lr_ratio},
          {"schedule", o.schedule},
          {"warmup", o.warmup},
          {"weight_decay", o.weight_decay},
          {"beta1", o.beta1},
          {"beta2", o.beta2},
          {"clip", o.clip},
          {"keep_sparsity", o.keep_sparsity},
          {"isolate_documents", o.isolate_documents},
          {"eos", o.eos}};
}

struct Shape {
  int64_t windows_per_step = 0, micro_windows = 0, lanes = 0;
};

/// How a step is divided; from options and sizes alone, never from threads or free memory, as
/// results depend on it.
Shape step_shape(const DistillOptions& o, int64_t parameters) {
  Shape shape;
  shape.windows_per_step = o.batch * o.accumulation;
  shape.micro_windows =
      o.micro_batch > 0 ? o.micro_batch : std::max<int64_t>(1, kMicroTokens / o.context);
  // A batch that is small still feeds two threads.
  if (o.micro_batch == 0)
    shape.micro_windows =
        std::max<int64_t>(1, std::min(shape.micro_windows, (shape.windows_per_step + 1) / 2));
  const int64_t passes = (shape.windows_per_step + shape.micro_windows - 1) / shape.micro_windows;
  const int64_t affordable =
      std::max<int64_t>(2, (int64_t{128} << 20) / std::max<int64_t>(1, parameters));
  shape.lanes = std::min(passes, o.lanes > 0 ? o.lanes : std::min<int64_t>(16, affordable));
  return shape;
}

int64_t count_steps(const DistillOptions& o, int64_t windows) {
  const int64_t per_step = o.batch * o.accumulation;
  if (o.steps > 0) return o.steps;
  const double wanted = o.tokens > 0
                            ? static_cast<double>(o.tokens) / static_cast<double>(o.context)
                            : (o.epochs > 0 ? o.epochs : 1.0) * static_cast<double>(windows);
  return std::max<int64_t>(1,
                           static_cast<int64_t>(std::ceil(wanted / static_cast<double>(per_step))));
}

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

DistillOptions DistillStage::with_inputs(const Inputs& inputs) const {
  DistillOptions o = options_;
  for (const auto& [key, path] : inputs.paths) {
    if (key == "teacher") o.teacher = path;
    if (key == "student") o.student = path;
    if (key == "tokenizer") o.tokenizer = path;
    if (key == "output") o.output = path;
  }
  o.output = without_slash(o.output);
  if (o.teacher.empty()) o.loss = "cross_entropy";
  return o;
}

/// A cache's text is packed already.
void take_from_cache(DistillOptions& o, const Sources& sources) {
  if (sources.cache == nullptr) return;
  const TeacherCacheHeader& header = sources.cache->header();
  o.context = header.context;
  o.isolate_documents = header.isolate_documents;
  o.eos = header.eos;
}

Vocabulary vocabulary_of(const DistillOptions& o, const Sources& sources) {
  if (sources.cache == nullptr)
    return shared_vocabulary(o.tokenizer, sources.teacher.get(), sources.student);
  Vocabulary vocabulary =
      shared_vocabulary(sources.cache->tokenizer_path(), nullptr, sources.student);
  const TeacherCacheHeader& header = sources.cache->header();
  if (vocabulary.tokenizer->hash() != header.tokenizer_hash || vocabulary.size != header.vocab)
    throw_bad_input(cat(sources.cache->tokenizer_path(),
                        ": not the tokenizer that the cache was captured with"));
  return vocabulary;
}

Plan DistillStage::plan(const Inputs& inputs) const {
  DistillOptions o = with_inputs(inputs);
  const Sources sources = open_sources(o, 0, false);
  check_options(o, sources);
  take_from_cache(o, sources);
  Plan plan;
  plan.stage = "distill";
  plan.output = o.output;
  plan.details = {
      {"teacher", o.teacher}, {"student", o.student}, {"tokenizer", o.tokenizer}, {"loss", o.loss}};
  const DType type = dtype_from_name(o.save_dtype);
  const auto* model = dynamic_cast<const Model*>(sources.student.weights.get());
  for (const TensorSpec& spec :
       family_by_name(sources.student.arch.family).tensors(sources.student.arch)) {
    PlanRow row{.tensor = spec.name,
                .file_name = spec.hf.name,
                .shape = spec.shape,
                .new_shape = spec.shape,
                .from = "random",
                .to = o.save_dtype,
                .reason = model != nullptr ? "trained on" : "trained from random weights"};
    if (sources.student.weights->has(spec.name)) {
      const TensorView view = sources.student.weights->view(spec.name);
      row.from = dtype_name(view.dtype);
      row.bytes_before = view.bytes();
    }
    if (!sources.student.layers.empty()) row.reason = "starts as the teacher's";
    row.bytes_after = dtype_row_bytes(type, element_count(spec.shape));
    plan.output_bytes += row.bytes_after;
    plan.rows.push_back(std::move(row));
  }
  const Shape shape = step_shape(o, sources.student.arch.parameters);
  uint64_t text_bytes = 0;
  for (const std::string& file : o.data) text_bytes += fs::file_size(file);
  const int64_t steps =
      count_steps(o, sources.cache ? sources.cache->header().windows - o.eval_windows
                                   : static_cast<int64_t>(text_bytes / kBytesPerToken) / o.context);
  const TrainingSize size{
      .student = &sources.student.arch,
      .teacher = sources.uses_teacher && sources.teacher ? &sources.teacher->arch() : nullptr,
      .tokens = steps * shape.windows_per_step * o.context,
      .micro_tokens = shape.micro_windows * o.context,
      .lanes = shape.lanes,
      .head_rows = kHeadRows,
      .text_bytes = text_bytes,
      .keep_sparsity = o.keep_sparsity};
  plan.predicted_peak_bytes = training_memory(size);
  plan.predicted_seconds = training_seconds(size);
  plan.notes.push_back(cat(
      "student: ", human_count(static_cast<uint64_t>(sources.student.arch.parameters)),
      " parameters in ", sources.student.arch.layers, " layers, from ", sources.student.origin));
  plan.notes.push_back(
      sources.cache != nullptr
          ? cat("teacher: ", sources.cache->header().k, " best of ",
                sources.cache->header().teacher, ", from ", o.teacher,
                ", which also gives the text; loss ", o.loss, " at T = ", o.temperature,
                ", cross-entropy's share ", o.ce_weight,
                o.loss == "forward_kl" || o.loss == "skew_kl" || o.loss == "cross_entropy"
                    ? ""
                    : "; this loss weighs what the teacher finds unlikely, of which a cache keeps "
                      "only the sum")
      : sources.uses_teacher
          ? cat("teacher: ", human_count(static_cast<uint64_t>(sources.teacher->arch().parameters)),
                " parameters, ", o.teacher, "; loss ", o.loss, " at T = ", o.temperature,
                ", cross-entropy's share ", o.ce_weight)
          : std::string("no teacher: the text alone, cross-entropy"));
  plan.notes.push_back(cat(steps, " steps",
                           o.steps > 0 || o.tokens > 0 ? "" : " (from the text's size)", " of ",
                           shape.windows_per_step, " windows of ", o.context, " tokens; a pass of ",
                           shape.micro_windows, " windows, ", shape.lanes, " lanes"));
  return plan;
}

/// Written = meant, as far as models go: finite through the runtime, and the same function in
/// LibTorch. Returns the largest difference.
double verify_output(const std::string& path, Context& context) {
  const auto model = Model::open(path);
  smoke_test(*model);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 32; ++i)
    ids.push_back(static_cast<int32_t>((i * 7919 + 1) % model->arch().vocab));
  const auto count = static_cast<int64_t>(
      std::min<int64_t>(32, model->arch().context > 0 ? model->arch().context : 32));
  ids.resize(static_cast<size_t>(count));
  const std::vector<float> theirs = torch_module(context).logits(*model, ids, context.device);
  const auto decoder = Decoder::create(*model, Activations::kF32);
  const auto cache = decoder->new_cache(count);
  std::vector<float> ours(theirs.size());
  decoder->forward(*cache, ids, ours.data(), false);
  double worst = 0.0;
  double size = 1.0;
  for (size_t i = 0; i < ours.size(); ++i) {
    worst =
        std::max(worst, std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
    size = std::max(size, std::abs(static_cast<double>(theirs[i])));
  }
  // The bound holds for logits of ordinary size; float32 itself allows no more on larger ones.
  SLMC_CHECK(worst <= 1e-3 * std::max(1.0, size / 100.0),
             cat(path, ": the runtime's and LibTorch's logits differ by ", worst));
  return worst;
}

/// What the written bytes are worth, by the runtime. Measured on at most 4096 tokens, as slmc eval
/// does more on request.
void measure_cost(const DistillOptions& o, const Sources& sources, Context& context,
                  Report& report) {
  report["evaluation"] = "not measured";
  if (o.eval_text.empty()) return;
  EvaluationOptions options;
  options.max_tokens = 4096;
  options.context = o.context;
  report["evaluation"] =
      evaluate_text(*Model::open(o.output), sources.teacher.get(), o.eval_text, options, context);
}

std::string cost_line(const Json& evaluation, const std::string& text) {
  if (!evaluation.is_object())
    return "cost on held-out text: not measured (give --eval-text FILE, or use slmc eval)";
  std::string line =
      cat("written file on ", text, ": perplexity ", fixed(evaluation.value("perplexity", 0.0), 3));
  if (evaluation.contains("against"))
    line += cat(", teacher's ", fixed(evaluation["against"].value("perplexity", 0.0), 3), ", KLD ",
                fixed(evaluation["against"].value("kld_mean", 0.0), 4), ", top-1 agreement ",
                fixed(100.0 * evaluation["against"].value("top1_agreement", 0.0), 1), "%");
  return line;
}

/// The cached windows, the last of them held out.
void load_cached(const DistillOptions& o, const Sources& sources, TrainingJob& job) {
  job.data = sources.cache->data();
  if (o.eval_windows == 0) return;
  job.eval_data = job.data;
  job.data.windows -= o.eval_windows;
  job.first_eval_window = job.data.windows;
  const auto drop = [&](auto& values) {
    if (!values.empty())
      values.erase(values.begin(), values.begin() + job.data.windows * o.context);
  };
  drop(job.eval_data.ids);
  drop(job.eval_data.learned);
  drop(job.eval_data.document);
  job.eval_data.windows = o.eval_windows;
}

void load_data(const DistillOptions& o, const Sources& sources, const Vocabulary& vocabulary,
               Context& context, TrainingJob& job) {
  const auto load = [&](const std::vector<std::string>& files, bool shuffle, uint64_t seed) {
    PackedData data = load_training_data(files, ChatTemplate::from_assets(vocabulary.assets),
                                         *vocabulary.tokenizer, o.context, o.eos, shuffle, seed);
    check_ids(data, vocabulary.size);
    if (!o.isolate_documents) data.document.clear();
    return data;
  };
  if (!o.data.empty())
    progress_of(context).note(
        cat("reading ", o.data.size(), o.data.size() == 1 ? " file" : " files"));
  if (sources.cache != nullptr) {
    load_cached(o, sources, job);
    if (!o.data.empty() && load(o.data, true, sources.cache->header().seed).hash != job.data.hash)
      throw_bad_input(cat(o.teacher, ": the teacher was captured on other text than --data gives"));
    check_ids(job.data, vocabulary.size);
  } else {
    job.data = load(o.data, true, context.seed);
  }
  if (o.eval_text.empty()) return;
  if (sources.cache != nullptr)
    throw_usage(
        "eval_text: the teacher is not there to read it; hold windows of the cache back with "
        "--eval-windows, or measure with slmc eval");
  job.eval_data = load({o.eval_text}, false, context.seed);
  if (o.eval_tokens > 0)
    job.eval_data.windows =
        std::min(job.eval_data.windows, std::max<int64_t>(1, o.eval_tokens / o.context));
}

Report DistillStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  DistillOptions o = with_inputs({});
  o.teacher = plan.details.value("teacher", o.teacher);
  o.student = plan.details.value("student", o.student);
  o.tokenizer = plan.details.value("tokenizer", o.tokenizer);
  o.loss = plan.details.value("loss", o.loss);
  o.output = plan.output;
  check_output(o.output, context.force);
  TorchModule& torch = torch_module(context);
  Sources sources = open_sources(o, context.seed, true);
  check_options(o, sources);
  take_from_cache(o, sources);
  const Vocabulary vocabulary = vocabulary_of(o, sources);
  const Shape shape = step_shape(o, sources.student.arch.parameters);

  TrainingJob job;
  job.loss = {.loss = o.loss,
              .weight = 1.0 - o.ce_weight,
              .ce_weight = o.ce_weight,
              .temperature = o.temperature};
  job.adam = {.beta1 = o.beta1,
              .beta2 = o.beta2,
              .epsilon = 1e-8,
              .weight_decay = o.weight_decay,
              .clip = o.clip};
  job.windows_per_step = shape.windows_per_step;
  job.micro_windows = shape.micro_windows;
  job.lanes = shape.lanes;
  job.head_rows = kHeadRows;
  job.checkpoint_every = o.checkpoint_every;
  job.eval_every = o.eval_every;
  job.keep_sparsity = o.keep_sparsity;
  job.save_dtype = dtype_from_name(o.save_dtype);
  job.student = sources.student.weights;
  if (sources.uses_teacher) job.teacher = sources.teacher;
  if (sources.uses_teacher) job.cache = sources.cache;
  job.real_vocab = vocabulary.size;
  job.seed = context.seed;
  load_data(o, sources, vocabulary, context, job);
  job.steps = count_steps(o, job.data.windows);
  job.rate = {.peak = o.lr,
              .min_ratio = o.min_lr_ratio,
              .warmup = std::min(o.warmup, job.steps),
              .steps = job.steps,
              .decay = decay_from_name(o.schedule)};
  job.output.path = o.output;
  job.output.config = sources.student.config;
  job.output.assets = vocabulary.assets;
  job.output.metadata = {{"slmc.stage", "distill"}, {"slmc.student", sources.student.origin}};
  job.checkpoint_folder = o.output + ".training.partial";
  job.metrics_path = o.output + ".metrics.jsonl";
  const auto* model = dynamic_cast<const Model*>(sources.student.weights.get());
  job.conditions = {{"options", result_options(o)},
                    {"seed", context.seed},
                    {"data", job.data.hash},
                    {"steps", job.steps},
                    {"teacher", sources.teacher ? sources.teacher->content_hash()
                                : sources.cache ? sources.cache->header().teacher_hash
                                                : ""},
                    {"student", model != nullptr ? model->content_hash() : ""}};
  progress_of(context).note(cat(human_count(static_cast<uint64_t>(job.data.tokens)), " tokens in ",
                                human_count(static_cast<uint64_t>(job.data.documents)),
                                " documents; ", job.steps, " steps of ",
                                shape.windows_per_step * o.context));

  const Report training = torch.train(job, context);
  Report report = make_report(*this, plan, 0.0, context);
  report["options"]["loss"] = o.loss;
  report["provenance"]["libtorch"] = torch.version();
  report["training"] = training;
  report["student"] = {{"origin", sources.student.origin},
                       {"parameters", sources.student.arch.parameters},
                       {"layers", sources.student.layers}};
  report["data"] = {{"tokens", job.data.tokens},
                    {"documents", job.data.documents},
                    {"windows", job.data.windows},
                    {"hash", job.data.hash}};
  report["logits_difference_libtorch"] = verify_output(o.output, context);
  measure_cost(o, sources, context, report);
  report["seconds"] = now_seconds() - started;
  report["peak_rss_bytes"] = peak_rss_bytes();
  Json lines = Json::array(
      {cat("trained ", job.steps, " steps, ", human_count(training.value("tokens", uint64_t{0})),
           " tokens at ", fixed(training.value("tokens_per_second", 0.0), 0),
           " tokens/s; last loss ", fixed(training.value("final_loss", 0.0), 4))});
  lines.push_back(cost_line(report["evaluation"], o.eval_text));
  report["summary"] = lines;
  return report;
}

}  // namespace

std::unique_ptr<Stage> make_distill_stage(DistillOptions options) {
  return std::make_unique<DistillStage>(std::move(options));
}

}  // namespace slmc
