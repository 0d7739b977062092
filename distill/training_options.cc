#include "distill/training_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "distill/loss.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMicroTokens = 1024, kDeviceMicroTokens = 8192;

}  // namespace

void visit_data(Fields& f, TrainingOptions& o) {
  f.visit(
      {.name = "data",
       .help = "Training text: .txt (one document) or .jsonl (one a line). A teacher cache brings "
               "its own. For an encoder: text, of which masked tokens are guessed, or lines "
               "{\"text\", \"label\"}, which are classified.",
       .value_name = "FILE"},
      o.data);
  f.visit(
      {.name = "labels",
       .help = "Names of the classes in order, where --data has labels; without it the model's "
               "own, or those of the data. A model with other classes, or none, gets a new head.",
       .value_name = "LABEL"},
      o.labels);
  f.visit({.name = "output",
           .help = "What to write: a name ending in .gguf gives a GGUF, any other a folder in "
                   "Hugging Face's layout.",
           .required = true,
           .short_flag = "o",
           .value_name = "OUT"},
          o.output);
}

void visit_training(Fields& f, TrainingOptions& o) {
  f.visit({.name = "steps",
           .help = "Optimizer steps; or give tokens or epochs.",
           .min = 0,
           .value_name = "N"},
          o.steps);
  f.visit({.name = "tokens",
           .help = "Tokens to train on, rounded up to whole steps.",
           .min = 0,
           .value_name = "N"},
          o.tokens);
  f.visit({.name = "epochs",
           .help = "Passes over the data (1 if nothing else is given).",
           .min = 0,
           .value_name = "X"},
          o.epochs);
  f.visit({.name = "batch",
           .help = "Windows in a batch, or texts with labels.",
           .min = 1,
           .value_name = "N"},
          o.batch);
  f.visit({.name = "accumulation",
           .help = "Batches whose gradients make one step.",
           .min = 1,
           .value_name = "N"},
          o.accumulation);
  f.visit({.name = "context",
           .help = "Tokens in a window, or of a text with a label.",
           .min = 2,
           .value_name = "N"},
          o.context);
  f.visit({.name = "micro_batch",
           .help = "Windows in one forward pass, which bounds memory; 0: about 1024 tokens, "
                   "8192 on a GPU.",
           .min = 0,
           .value_name = "N"},
          o.micro_batch);
  f.visit({.name = "lanes",
           .help = "Gradient buffers, each filled by one thread at a time, or a single one by all "
                   "threads together, which takes the least memory; results depend on it and not "
                   "on --threads. 0: chosen from the batch and the student's size; a GPU has one.",
           .min = 0,
           .max = 256,
           .value_name = "N"},
          o.lanes);
  f.visit({.name = "lr", .help = "Highest learning rate.", .min = 0}, o.lr);
  f.visit({.name = "min_lr_ratio",
           .help = "Last learning rate as a part of the highest.",
           .min = 0,
           .max = 1},
          o.min_lr_ratio);
  f.visit({.name = "schedule",
           .help = "How the learning rate falls after the warm-up; wsd (warm-up, stable, decay) "
                   "holds it and falls linearly at the end.",
           .choices = {"cosine", "linear", "constant", "wsd"}},
          o.schedule);
  f.visit({.name = "warmup",
           .help = "Steps over which the learning rate rises.",
           .min = 0,
           .value_name = "N"},
          o.warmup);
  f.visit({.name = "decay_part",
           .help = "Part of the steps, at the end, over which wsd lets the learning rate fall.",
           .min = 0,
           .max = 1},
          o.decay_part);
  f.visit({.name = "weight_decay",
           .help = "AdamW's decay of matrices; norms and biases have none.",
           .min = 0},
          o.weight_decay);
  f.visit(
      {.name = "beta1", .help = "AdamW's decay of the gradient's mean.", .min = 0, .max = 0.9999},
      o.beta1);
  f.visit({.name = "beta2",
           .help = "AdamW's decay of the gradient's square.",
           .min = 0,
           .max = 0.99999},
          o.beta2);
  f.visit(
      {.name = "epsilon",
       .help = "AdamW's addition to the root of the gradient's square: weights whose gradient is "
               "much smaller move in proportion to it.",
       .min = 1e-12},
      o.epsilon);
  f.visit({.name = "clip", .help = "Bound of the gradient's L2 norm; 0: none.", .min = 0}, o.clip);
  f.visit({.name = "dtype",
           .help = "bf16: the blocks' matrix products take both sides rounded to bf16; weights, "
                   "optimizer, norms, attention, head and loss stay float32. Faster where the "
                   "processor has bf16 instructions, slower elsewhere.",
           .choices = {"f32", "bf16"}},
          o.dtype);
  f.visit({.name = "recompute",
           .help = "Run each block again in the backward pass, so that only what enters it is "
                   "kept: less memory, about a third more time, the same numbers."},
          o.recompute);
  f.visit({.name = "checkpoint_every",
           .help = "Steps between checkpoints; 0: only when interrupted.",
           .min = 0,
           .value_name = "N"},
          o.checkpoint_every);
  f.visit({.name = "eval_text",
           .help = "Held-out text, or texts with labels, on which the runtime measures the bytes "
                   "that would be exported.",
           .value_name = "FILE"},
          o.eval_text);
  f.visit({.name = "eval_every",
           .help = "Steps between measurements on --eval-text, of which the best is kept; 0: only "
                   "at the end.",
           .min = 0,
           .value_name = "N"},
          o.eval_every);
  f.visit(
      {.name = "eval_tokens",
       .help = "Tokens of --eval-text to measure on, at least a window; 0: all. Texts with labels "
               "are all used.",
       .min = 0,
       .value_name = "N"},
      o.eval_tokens);
  f.visit(
      {.name = "patience",
       .help = "Measurements in a row without a better one after which training ends; 0: never.",
       .min = 0,
       .value_name = "N"},
      o.patience);
  f.visit({.name = "keep_sparsity", .help = "Weights that are zero at the start stay zero."},
          o.keep_sparsity);
  f.visit({.name = "isolate_documents",
           .help = "Positions see only their own document, not those packed before it. Those of "
                   "encoders never see another."},
          o.isolate_documents);
  f.visit({.name = "eos", .help = "End each document with the tokenizer's end-of-text token."},
          o.eos);
  f.visit({.name = "save_dtype",
           .help = "Type of the written weights; auto: bf16, of an adapter f32.",
           .choices = {"auto", "f32", "f16", "bf16"}},
          o.save_dtype);
}

void visit_loss(Fields& f, ObjectiveOptions& o) {
  f.visit({.name = "loss",
           .help = cat("What is compared with the teacher, at every position: ", loss_list(),
                       ". Several are mixed by weights, forward_kl:0.7,mse_hidden:0.3; a weight "
                       "that changes over the steps is FROM..TO, or FROM..TO@PART of them."),
           .value_name = "LOSS[:WEIGHT],..."},
          o.loss);
  f.visit({.name = "ce_weight",
           .help = "Share of the text's own next token: (1 - w) * T^2 * loss + w * cross-entropy; "
                   "not used where LOSS names cross_entropy itself.",
           .min = 0,
           .max = 1},
          o.ce_weight);
  f.visit({.name = "temperature",
           .help = "T that divides both models' logits in the loss.",
           .min = 0.01,
           .max = 100},
          o.temperature);
}

void visit_quantize(Fields& f, ObjectiveOptions& o) {
  f.visit({.name = "quantize",
           .help = "Quantize what is exported by this scheme of slmc quantize (a GGUF; w4a16 and "
                   "its like a folder); held-out figures are then those of the quantized file.",
           .value_name = "SCHEME"},
          o.quantize);
  f.visit({.name = "qat",
           .help = "Quantization-aware training: the network runs on the values that --quantize "
                   "will write, at every step, so that it learns to make up for their rounding."},
          o.qat);
  f.visit(
      {.name = "qat_scales",
       .help = "With --qat: scales and minimums are trained along with the weights, or searched "
               "for at every step as slmc quantize does.",
       .choices = {"learned", "searched"}},
      o.qat_scales);
}

void check_training(const TrainingOptions& o, int64_t context,
                    const std::vector<const Architecture*>& networks) {
  if ((o.steps > 0) + (o.tokens > 0) + (o.epochs > 0) > 1)
    throw_usage("steps: give one of --steps, --tokens and --epochs, found more than one");
  for (const std::string& file : o.data)
    if (!fs::is_regular_file(file)) throw_bad_input(cat(file, ": training text not found"));
  if (!o.eval_text.empty() && !fs::is_regular_file(o.eval_text))
    throw_bad_input(cat(o.eval_text, ": held-out text not found"));
  if (o.patience > 0 && o.eval_every == 0)
    throw_usage("patience: counts measurements on the way; give --eval-every N too");
  for (const Architecture* arch : networks)
    if (arch->context > 0 && context > arch->context)
      throw_usage(
          cat("context: expected at most the model's ", arch->context, ", found ", context));
}

Json result_options(const TrainingOptions& o) {
  return {{"steps", o.steps},
          {"tokens", o.tokens},
          {"epochs", o.epochs},
          {"batch", o.batch},
          {"accumulation", o.accumulation},
          {"context", o.context},
          {"micro_batch", o.micro_batch},
          {"lr", o.lr},
          {"min_lr_ratio", o.min_lr_ratio},
          {"schedule", o.schedule},
          {"warmup", o.warmup},
          {"decay_part", o.decay_part},
          {"weight_decay", o.weight_decay},
          {"beta1", o.beta1},
          {"beta2", o.beta2},
          {"epsilon", o.epsilon},
          {"clip", o.clip},
          {"recompute", o.recompute},
          {"dtype", o.dtype},
          {"keep_sparsity", o.keep_sparsity},
          {"isolate_documents", o.isolate_documents},
          {"eos", o.eos}};
}

uint64_t text_bytes(const TrainingOptions& o) {
  uint64_t bytes = 0;
  for (const std::string& file : o.data) bytes += fs::file_size(file);
  return bytes;
}

StepShape step_shape(const TrainingOptions& o, int64_t parameters, int64_t window, int ranks,
                     bool on_cpu) {
  if (!on_cpu && o.lanes > 0 && o.lanes != ranks)
    throw_usage(cat("lanes: on a GPU each process has one, and ", o.lanes,
                    " were asked for; leave the option out"));
  StepShape shape{.windows_per_step = o.batch * o.accumulation, .on_cpu = on_cpu};
  const int64_t tokens = on_cpu ? kMicroTokens : kDeviceMicroTokens;
  shape.micro_windows = o.micro_batch > 0 ? o.micro_batch : std::max<int64_t>(1, tokens / window);
  // A batch that is small still feeds two lanes, or each process's one.
  const int64_t fed = on_cpu ? 2 : ranks;
  int64_t even = (shape.windows_per_step + fed - 1) / fed;
  if ((shape.windows_per_step + even - 1) / even < fed) even = shape.windows_per_step / fed;
  if (o.micro_batch == 0)
    shape.micro_windows = std::max<int64_t>(1, std::min(shape.micro_windows, even));
  const int64_t passes = (shape.windows_per_step + shape.micro_windows - 1) / shape.micro_windows;
  // A lane alone divides its products among the threads, where that is worth the memory of another.
  const int64_t affordable = std::max<int64_t>(
      o.dtype == "bf16" ? 2 : 1, (int64_t{128} << 20) / std::max<int64_t>(1, parameters));
  const int64_t chosen =
      std::max<int64_t>(ranks > 1 ? 2 * ranks : 1, std::min<int64_t>(16, affordable));
  shape.lanes = std::min(passes, !on_cpu ? ranks : o.lanes > 0 ? o.lanes : chosen);
  if (shape.lanes < ranks)
    throw_usage(cat("ranks: ", ranks, " processes share a step, which has only ", shape.lanes,
                    " lanes (", passes, " passes of ", shape.micro_windows,
                    " windows); raise --batch", on_cpu ? " or --lanes" : "",
                    ", lower --micro-batch, or start fewer"));
  return shape;
}

int64_t count_steps(const TrainingOptions& o, int64_t windows, int64_t window) {
  const int64_t per_step = o.batch * o.accumulation;
  if (o.steps > 0) return o.steps;
  const double wanted = o.tokens > 0
                            ? static_cast<double>(o.tokens) / static_cast<double>(window)
                            : (o.epochs > 0 ? o.epochs : 1.0) * static_cast<double>(windows);
  return std::max<int64_t>(1,
                           static_cast<int64_t>(std::ceil(wanted / static_cast<double>(per_step))));
}

void fill_job(const TrainingOptions& o, const StepShape& shape, TrainingJob& job) {
  job.adam = {.beta1 = o.beta1,
              .beta2 = o.beta2,
              .epsilon = o.epsilon,
              .weight_decay = o.weight_decay,
              .clip = o.clip};
  job.windows_per_step = shape.windows_per_step;
  job.micro_windows = shape.micro_windows;
  job.lanes = shape.lanes;
  const Architecture& arch = job.student->arch();
  job.head_rows =
      head_rows(arch.head == Head::kClassifier ? arch.classes : arch.vocab, shape.on_cpu);
  job.recompute = o.recompute;
  job.bf16 = o.dtype == "bf16";
  job.checkpoint_every = o.checkpoint_every;
  job.eval_every = o.eval_every;
  job.patience = o.patience;
  job.keep_sparsity = o.keep_sparsity;
  job.steps = count_steps(o, job.data.windows, job.data.context);
  job.rate = {.peak = o.lr,
              .min_ratio = o.min_lr_ratio,
              .warmup = std::min(o.warmup, job.steps),
              .steps = job.steps,
              .decay = decay_from_name(o.schedule),
              .decay_steps =
                  static_cast<int64_t>(std::ceil(o.decay_part * static_cast<double>(job.steps)))};
  job.checkpoint_folder = o.output + ".training.partial";
  job.metrics_path = o.output + ".metrics.jsonl";
}

std::string steps_note(const TrainingOptions& o, const StepShape& shape, int64_t steps,
                       const std::string& windows) {
  return cat(steps, " steps", o.steps > 0 || o.tokens > 0 ? "" : " (from the text's size)", " of ",
             shape.windows_per_step, " ", windows, "; a pass of ", shape.micro_windows, ", ",
             shape.lanes, " lanes");
}

}  // namespace slmc
