// The gradient of a training job, read from a step: AdamW with a huge epsilon and no memory takes a
// plain gradient step.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "distill/training.h"

namespace slmc::test {

using Floats = std::vector<float>;
using Tensors = std::map<std::string, Floats>;

Floats decoded(const TensorView& view);

struct GradientStep {
  double loss = 0;    ///< Mean.
  Tensors gradients;  ///< Of every tensor of the job's layout.
};
/// One step over all of `job.data` on `device`; a weight near 0.2 is known to 1e-8, so its gradient
/// to 1e-7.
GradientStep gradient_step(TrainingJob job, const std::string& device = "cpu");

/// The norm of the difference, and that of `theirs`.
struct Apart {
  double distance = 0, size = 0;
};
Apart apart(const Floats& ours, const Floats& theirs);

}  // namespace slmc::test
