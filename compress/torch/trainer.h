// The training loop: forward, fused loss, backward, AdamW, checkpoints.
#pragma once

#include <string>

#include "compress/core/stage.h"
#include "distill/training.h"

namespace slmc::libtorch {

/// Runs the job to its end and writes the student. See TorchModule::train.
Report train(const TrainingJob& job, Context& context, const std::string& torch_version);

}  // namespace slmc::libtorch
