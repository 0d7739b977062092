#include "tests/support/gradient_step.h"

#include <cmath>

#include "compress/core/error.h"
#include "tests/support/tiny_model.h"

namespace slmc::test {

Floats decoded(const TensorView& view) {
  Floats out(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), out.data());
  return out;
}

TorchModule& torch_for_gpus() {
  Context context;
  context.device = "cuda";
  return torch_module(context);
}

std::string no_gpu() {
  return error_of([] { torch_for_gpus().check_device("cuda"); });
}

std::vector<TrainingWay> training_ways() {
  std::vector<TrainingWay> ways{{false, "cpu"}, {true, "cpu"}};
  if (no_gpu().empty()) ways.push_back({true, "cuda"});
  return ways;
}

GradientStep gradient_step(TrainingJob job, const TrainingWay& way) {
  constexpr double kEpsilon = 1e6, kRate = 0.1;
  job.adam = {.beta1 = 0, .beta2 = 0, .epsilon = kEpsilon, .weight_decay = 0, .clip = 0};
  job.rate = {.peak = kRate * kEpsilon, .min_ratio = 1, .steps = 1, .decay = Decay::kConstant};
  job.steps = 1;
  job.windows_per_step = job.data.windows;
  job.plain_operators = way.plain_operators;
  const ScratchFolder folder;
  job.checkpoint_folder = folder.file("checkpoint");
  job.product.path = folder.file("out");
  GradientStep step;
  job.product.write = [&](const WeightSource& trained, const std::string& path) {
    for (const ParameterSlot& slot : job.layout.slots) {
      const Floats after = decoded(trained.view(slot.name)),
                   before = decoded(job.start->view(slot.name));
      Floats& gradient = step.gradients[slot.name];
      for (size_t i = 0; i < after.size(); ++i)
        gradient.push_back(static_cast<float>(
            (static_cast<double>(before[i]) - static_cast<double>(after[i])) / kRate));
    }
    spit(path, "");
  };
  Context context;
  context.device = way.device;
  step.loss = torch_for_gpus().train(job, context)["final_loss"];
  return step;
}

Apart apart(const Floats& ours, const Floats& theirs) {
  SLMC_CHECK(ours.size() == theirs.size(), "gradients of one tensor");
  Apart sums;
  for (size_t i = 0; i < ours.size(); ++i) {
    sums.distance += std::pow(static_cast<double>(ours[i]) - static_cast<double>(theirs[i]), 2);
    sums.size += std::pow(static_cast<double>(theirs[i]), 2);
  }
  return {std::sqrt(sums.distance), std::sqrt(sums.size)};
}

}  // namespace slmc::test
