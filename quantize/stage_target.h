// What the quantize stage does for a target, and with calibration text in place of a text for cost.
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "quantize/sensitivity.h"
#include "quantize/stage.h"

namespace slmc {

/// A file beside the output that is removed when a run ends, unless it is kept for resuming. A
/// killed run cannot.
class ScratchFile {
 public:
  ScratchFile(std::string path, bool keep) : path_(std::move(path)), keep_(keep) {}
  ~ScratchFile() {
    std::error_code error;
    if (!keep_) std::filesystem::remove(path_, error);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  void finished() { keep_ = false; }
  void keep() { keep_ = true; }

 private:
  std::string path_;
  bool keep_;
};

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
