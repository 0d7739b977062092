// The distill stage: a student is built from its teacher's layers, a checkpoint or a configuration,
// and trained on text, with the teacher's distributions as targets or, without a teacher, on the
// text alone. Options and plan are here; training is LibTorch's module's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"

namespace slmc {

struct DistillOptions {
  std::string teacher;    ///< A model, or a teacher cache; empty: train on the text alone.
  std::string student;    ///< "layers:N", a checkpoint, or a config.json.
  std::string tokenizer;  ///< Folder or model; empty: the student's or the teacher's.
  std::vector<std::string> data;
  std::string output;
  std::string loss = "forward_kl";  ///< Without a teacher: cross_entropy.
  double ce_weight =
      0.1;  ///< loss = (1 - ce_weight) * T^2 * distillation + ce_weight * cross-entropy.
  double temperature = 1.0;
  int64_t steps = 0;  ///< One of steps, tokens, epochs; none: one epoch.
  int64_t tokens = 0;
  double epochs = 0;
  int64_t batch = 16;        ///< Windows in one batch.
  int64_t accumulation = 1;  ///< Batches in one step.
  int64_t context = 256;
  int64_t micro_batch = 0;  ///< Windows in one forward pass; 0: about 1024 tokens.
  int64_t lanes = 0;        ///< 0: chosen from batch and size of the student.
  double lr = 1e-3;
  double min_lr_ratio = 0.1;
  std::string schedule = "cosine";
  int64_t warmup = 0;  ///< Steps.
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double clip = 1.0;
  int64_t checkpoint_every = 200;
  std::string eval_text;
  int64_t eval_every = 0;
  int64_t eval_tokens = 16384;
  int64_t eval_windows = 0;  ///< Of a teacher cache: the last ones are measured on, not trained on.
  bool keep_sparsity = false;
  bool isolate_documents = false;  ///< Positions see only their own document.
  bool eos = true;                 ///< EOS after each document.
  std::string save_dtype = "bf16";
};

void visit_options(Fields& fields, DistillOptions& options);
std::unique_ptr<Stage> make_distill_stage(DistillOptions options = {});

}  // namespace slmc
