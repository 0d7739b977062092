// Calibration text: what the methods that look at a layer's inputs learn those inputs from. Read,
// tokenized, cut into windows, and looked over for what commonly makes calibration worthless.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "formats/model.h"

namespace slmc {

struct CalibrationOptions {
  std::vector<std::string> calibration{};  ///< Files, as formats/documents.h reads them.
  int64_t calibration_tokens = 0;          ///< 0: all there are, up to kCalibrationTokens.
  int64_t calibration_context = 0;  ///< Tokens a window; 0: the lesser of 512 and the model's.
};
constexpr int64_t kCalibrationTokens = 65536;

void visit_calibration(CalibrationOptions& options, Fields& fields);

struct CalibrationData {
  std::vector<std::vector<int32_t>> windows;  ///< Each begins with BOS where the model adds one.
  int64_t context = 0;                        ///< Of the longest window.
  int64_t tokens = 0;                         ///< In all windows.
  std::string hash;                           ///< Of all ids and cuts.
  std::vector<std::string> findings;          ///< Sentences about what is amiss.
  Json facts = Json::object();                ///< For the report.
};

/// Reads the files and cuts the stream of their documents into windows, the remainder dropped
/// unless it is all there is. Throws Error(kUsage) without files or for a context below 8 or beyond
/// the model's, Error(kBadInput) for fewer tokens than `calibration_tokens` asks for.
CalibrationData load_calibration(const CalibrationOptions& options, const Model& model);

/// What is amiss with the windows: fewer tokens than the widest layer has inputs, no BOS though the
/// model knows one or two in a row, no chat template though the model has one, the same text again
/// and again, one script only for a vocabulary that has many.
std::vector<std::string> lint_calibration(const CalibrationData& data, const Model& model,
                                          bool any_chat);

}  // namespace slmc
