// What the quantize stage does for a target, and with calibration text in place of a text for cost.
#pragma once

#include <string>

#include "compress/core/scratch_file.h"
#include "quantize/sensitivity.h"
#include "quantize/stage.h"

namespace slmc {

/// What measuring for a target has found out, until the output is whole.
std::string sensitivity_path(const QuantizeOptions& options);
/// How the windows of a run that may be resumed are run through the model.
std::string conditions_path(const QuantizeOptions& options);
/// calibration_forward's, where there is text to run over; else the default.
CalibrationForward forward_of(const QuantizeOptions& options, const Context* context);
/// Writes `forward`'s conditions there. What a killed run left there must be the same on resuming:
/// Error(kUsage), or with --allow-drift what differs in one line.
std::string check_conditions(const QuantizeOptions& options, const CalibrationForward& forward,
                             const Context& context);
/// The scheme's name, or the target in its place.
std::string scheme_text(const QuantizeOptions& options);

/// What there is to measure for a target in windows of `window` tokens, but for the variants.
SensitivitySize measuring_size(const QuantizeOptions& options, int64_t window);

/// True if what quantizing cost is measured on the calibration text, for want of another.
bool costs_by_calibration(const QuantizeOptions& options, const Model& model);
/// The options with the text that cost is measured on.
WeightStageOptions with_cost_text(const QuantizeOptions& options, const Model& model);
/// As measure_cost, on evenly spaced windows; "text" is "calibration".
Json calibration_cost(const QuantizeOptions& options, const Model& model,
                      const CalibrationData& data, Context& context);

}  // namespace slmc
