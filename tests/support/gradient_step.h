// The gradient of a training job, read from a step: AdamW with a huge epsilon and no memory takes a
// plain gradient step.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compress/core/torch_module.h"
#include "distill/training.h"

namespace slmc::test {

using Floats = std::vector<float>;
using Tensors = std::map<std::string, Floats>;

Floats decoded(const TensorView& view);

/// LibTorch as a GPU needs it, for tests that go on to one: whoever opens it for the cpu alone has
/// shut the others out.
TorchModule& torch_for_gpus();
/// Why there is no GPU to test on, "" if there is one.
std::string no_gpu();

/// By our kernels; in LibTorch's operators on the cpu; and on a GPU, where LibTorch can use one.
struct TrainingWay {
  bool plain_operators = false;
  std::string device = "cpu";
};
std::vector<TrainingWay> training_ways();

struct GradientStep {
  double loss = 0;    ///< Mean.
  Tensors gradients;  ///< Of every tensor of the job's layout.
};
/// One step over all of `job.data`; a weight near 0.2 is known to 1e-8, so its gradient to 1e-7.
GradientStep gradient_step(TrainingJob job, const TrainingWay& way = {});

/// The norm of the difference, and that of `theirs`.
struct Apart {
  double distance = 0, size = 0;
};
Apart apart(const Floats& ours, const Floats& theirs);

}  // namespace slmc::test
