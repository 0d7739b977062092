// The distill stage: a student is built from its teacher's layers, a checkpoint or a configuration,
// and trained on text, with the teacher's distributions as targets or, without a teacher, on the
// text alone. Its plan and run are those of training_stage.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "distill/on_policy.h"
#include "distill/training_options.h"

namespace slmc {

struct DistillOptions : ObjectiveOptions {
  std::string student;       ///< "layers:N", a checkpoint, or a config.json.
  std::string tokenizer;     ///< Folder or model; empty: the student's or the teacher's.
  int64_t eval_windows = 0;  ///< Of a teacher cache: the last ones are measured on, not trained on.
  OnPolicyOptions on_policy;
};

void visit_options(Fields& fields, DistillOptions& options);
std::unique_ptr<Stage> make_distill_stage(DistillOptions options = {});

}  // namespace slmc
