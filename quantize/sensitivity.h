// What each type would cost each tensor, in nats of divergence from the model: measured for one
// type or a few, and carried over to the others by what their rounding does to the layer's output
// on the calibration inputs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"
#include "quantize/calibration.h"
#include "quantize/imatrix.h"
#include "quantize/method.h"

namespace slmc {

/// Tensors that must share a type, and the types they may have.
struct BudgetGroup {
  std::vector<std::string> tensors;
  std::vector<DType> types;
  std::vector<size_t> anchors;  ///< Indices into `types`: those whose divergence is measured.
};

struct SensitivityJob {
  const Model* model = nullptr;
  const CalibrationData* data = nullptr;
  const ImportanceMatrix* imatrix = nullptr;  ///< For method imatrix, in place of the data's.
  const Method* method = nullptr;
  MethodOptions method_options;
  std::vector<BudgetGroup> groups;
  int64_t tokens = 2048;     ///< Of the calibration windows, on which divergence is measured.
  std::string journal;       ///< Where what is known is kept; empty: nowhere.
  std::string spill_folder;  ///< Not empty: hidden states go into a file there.
};

/// [group][type]. With c the ratio of measured divergence to output error at the nearest anchor, a
/// type's divergence is c times its output error: the mean over inputs x of |(W - Q) x|^2 (for
/// methods without a Hessian, with correlations of inputs left out), on evenly spaced rows encoded
/// by the method itself. This is the second order of the divergence with the curvature of all
/// outputs of a layer taken as equal.
struct Sensitivity {
  std::vector<std::vector<double>> divergence;
  std::vector<std::vector<double>> error;  ///< The output errors, in units of their own.
};

Sensitivity measure_sensitivity(const SensitivityJob& job, Context& context);
/// What there is to measure, as far as a plan knows.
struct SensitivitySize {
  size_t variants = 0;             ///< Of single tensors, over all blocks.
  int64_t tokens = 0, window = 0;  ///< On which each is measured; of one window.
  int64_t calibration_tokens = 0;  ///< That output errors are gathered over.
  bool hessian = false;            ///< Whether the method factors one for each group of inputs.
};
/// Seconds it takes, and bytes it holds at most besides what calibration does.
double sensitivity_seconds(const Model& model, const SensitivitySize& size);
uint64_t sensitivity_peak_bytes(const Model& model, const std::vector<BudgetGroup>& groups,
                                const SensitivitySize& size);
/// Where a tensor is used (DivergenceMeter): -1 before the blocks, `layers` behind them.
int64_t stage_of(const std::string& tensor, int64_t layers);

}  // namespace slmc
