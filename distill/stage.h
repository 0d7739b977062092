// The distill stage: a student is built from its teacher's layers, a checkpoint or a configuration,
// and trained on text, with the teacher's distributions as targets or, without a teacher, on the
// text alone. Options and plan are here; training is LibTorch's module's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "distill/training_options.h"

namespace slmc {

struct DistillOptions : TrainingOptions {
  std::string teacher;    ///< A model, or a teacher cache; empty: train on the text alone.
  std::string student;    ///< "layers:N", a checkpoint, or a config.json.
  std::string tokenizer;  ///< Folder or model; empty: the student's or the teacher's.
  std::string loss = "forward_kl";  ///< Without a teacher: cross_entropy.
  double ce_weight =
      0.1;  ///< loss = (1 - ce_weight) * T^2 * distillation + ce_weight * cross-entropy.
  double temperature = 1.0;
  int64_t eval_windows = 0;  ///< Of a teacher cache: the last ones are measured on, not trained on.
  std::string quantize;      ///< Scheme of what is exported; empty: save_dtype.
  bool qat = false;          ///< Train on the values that `quantize` will write.
};

void visit_options(Fields& fields, DistillOptions& options);
std::unique_ptr<Stage> make_distill_stage(DistillOptions options = {});

}  // namespace slmc
