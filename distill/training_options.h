// Options that every stage that trains has: data, steps, batches, AdamW, what is measured on the
// way; and what follows from them alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "distill/training.h"
#include "formats/architecture.h"

namespace slmc {

struct TrainingOptions {
  std::vector<std::string> data;
  std::vector<std::string> labels;  ///< Names of the classes, in order; empty: the model's, or the
                                    ///< data's.
  std::string output;
  int64_t steps = 0;  ///< One of steps, tokens, epochs; none: one epoch.
  int64_t tokens = 0;
  double epochs = 0;
  int64_t batch = 16;        ///< Windows in one batch.
  int64_t accumulation = 1;  ///< Batches in one step.
  int64_t context = 256;
  int64_t micro_batch = 0;  ///< Windows in one forward pass; 0: about 1024 tokens.
  int64_t lanes = 0;        ///< 0: chosen from batch and what is trained.
  double lr = 1e-3;
  double min_lr_ratio = 0.1;
  std::string schedule = "cosine";
  int64_t warmup = 0;       ///< Steps.
  double decay_part = 0.2;  ///< Of the steps, at the end of schedule wsd.
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip = 1.0;
  std::string dtype = "f32";  ///< Of what the blocks' matrix products multiply.
  bool recompute = false;  ///< Blocks are run again in the backward pass, which keeps less of them.
  int64_t checkpoint_every = 200;
  std::string eval_text;
  int64_t eval_every = 0;
  int64_t eval_tokens = 4096;
  int64_t patience = 0;  ///< Measurements without a better one after which training ends; 0: never.
  bool keep_sparsity = false;
  bool isolate_documents = false;   ///< Positions see only their own document.
  bool eos = true;                  ///< EOS after each document.
  std::string save_dtype = "auto";  ///< bf16, of an adapter f32.
};

/// What is learned, from whom, and as what it is exported.
struct ObjectiveOptions : TrainingOptions {
  std::string teacher;  ///< A model, or a teacher cache; empty: train on the text alone.
  std::string loss = "forward_kl";  ///< Without a teacher: cross_entropy.
  double ce_weight =
      0.1;  ///< loss = (1 - ce_weight) * T^2 * distillation + ce_weight * cross-entropy.
  double temperature = 1.0;
  std::string quantize;                ///< Scheme of what is exported; empty: save_dtype.
  bool qat = false;                    ///< Train on the values that `quantize` will write.
  std::string qat_scales = "learned";  ///< Or searched, at every step.
};

void visit_data(Fields& fields, TrainingOptions& options);       ///< data, output
void visit_training(Fields& fields, TrainingOptions& options);   ///< The others.
void visit_loss(Fields& fields, ObjectiveOptions& options);      ///< loss, ce_weight, temperature
void visit_quantize(Fields& fields, ObjectiveOptions& options);  ///< quantize, qat, qat_scales

/// Throws Error(kUsage) or Error(kBadInput) for options that contradict each other, or files that
/// are not there. `networks`: architectures that must be able to read windows of `context`.
void check_training(const TrainingOptions& options, int64_t context,
                    const std::vector<const Architecture*>& networks);
/// The options that decide results, for the checkpoint.
Json result_options(const TrainingOptions& options);

/// Bytes of the training text.
uint64_t text_bytes(const TrainingOptions& options);

/// How a step is divided; from options, sizes, device and ranks alone, never from threads or free
/// memory, as results depend on it. They do not depend on ranks where the lanes are the same.
struct StepShape {
  int64_t windows_per_step = 0, micro_windows = 0, lanes = 0;
  bool on_cpu = true;  ///< Otherwise a device, with one lane a rank.
};
/// Lanes are those of all `ranks`: at least two each where a step has that many passes; on a device
/// one each, with larger passes. `window`: tokens of one. Throws Error(kUsage) if a step has fewer
/// passes than ranks, or for --lanes of a device.
StepShape step_shape(const TrainingOptions& options, int64_t trained_parameters, int64_t window,
                     int ranks, bool on_cpu);
/// Optimizer steps over data of so many windows of `window` tokens.
int64_t count_steps(const TrainingOptions& options, int64_t windows, int64_t window);
/// Everything of `job` that these options say: AdamW, schedule, steps (job.data must be there),
/// division, paths of checkpoint and metrics.
void fill_job(const TrainingOptions& options, const StepShape& shape, TrainingJob& job);
/// "120 steps (from the text's size) of 16 windows of 256 tokens; ..." for a plan. `windows`: what
/// window_text says.
std::string steps_note(const TrainingOptions& options, const StepShape& shape, int64_t steps,
                       const std::string& windows);

}  // namespace slmc
