// Moves scale between the inputs of linear layers and their weights before anything is rounded, as
// AWQ and SmoothQuant do. How much is a method's decision (`Method::smooth`); where it can be
// folded is this file's: into the norm before a group of layers, or into the rows of a layer that
// the group's inputs are linear in.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/stage.h"
#include "formats/model_writer.h"
#include "quantize/calibration.h"
#include "quantize/method.h"
#include "quantize/scaled_weights.h"

namespace slmc {

struct SmoothingJob {
  const Model* model = nullptr;
  const std::vector<OutputTensor>* targets = nullptr;
  const Method* smoother = nullptr;  ///< Has `smooth`.
  MethodOptions method_options{};
  const CalibrationData* data = nullptr;
  std::string spill_folder{};
};

/// Runs the model over the calibration windows block by block and scales `weights`, which is of the
/// same model. Returns what the report says of each smoothed matrix. Throws Error(kUnsupported) for
/// an architecture whose norms cannot take the scales.
std::map<std::string, Json> smooth_model(const SmoothingJob& job, ScaledWeights& weights,
                                         Context& context);

}  // namespace slmc
