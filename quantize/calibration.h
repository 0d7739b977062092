// Calibration text: what the methods that look at a layer's inputs learn those inputs from. Read,
// tokenized, cut into windows, and looked over for what commonly makes calibration worthless.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

class TorchModule;

struct CalibrationOptions {
  std::vector<std::string> calibration{};  ///< Files, as formats/documents.h reads them.
  int64_t calibration_tokens = 0;          ///< 0: all there are, up to kCalibrationTokens.
  int64_t calibration_context = 0;  ///< Tokens a window; 0: the lesser of 512 and the model's.
  std::string backend;              ///< "runtime" or "torch"; "": by the device.
  std::string forward_dtype;        ///< "f32" or "bf16" (torch only); "": f32.
};
constexpr int64_t kCalibrationTokens = 65536;

void visit_calibration(CalibrationOptions& options, Fields& fields);

/// What runs the model over the windows.
struct CalibrationForward {
  std::string backend = "runtime";  ///< or "torch"
  std::string device = "cpu";       ///< "cuda", "cuda:N": torch only.
  std::string dtype = "f32";        ///< "bf16": matrix products round both sides; sums stay f32.
  TorchModule* module = nullptr;    ///< Null for the runtime.

  bool on_cpu() const { return device == "cpu"; }
  /// What LibTorch takes of the machine's memory by itself.
  uint64_t library_bytes() const;
  /// For reports, and what must be the same on resuming: the runtime gives the same bits
  /// everywhere, LibTorch for one version, device and processor type.
  Json conditions() const;
  /// "the reference runtime", "LibTorch 2.13.0 on cuda, bf16 products".
  std::string text() const;
};

/// What the options ask for on `context`'s device (null: the cpu). Opens LibTorch where that is it.
/// Throws Error(kUsage) for a combination that has no meaning, Error(kUnsupported) in one line
/// where LibTorch or the device is missing.
CalibrationForward calibration_forward(const CalibrationOptions& options, const Context* context);

struct CalibrationData {
  std::vector<std::vector<int32_t>> windows;  ///< Each begins with BOS where the model adds one.
  int64_t context = 0;                        ///< Of the longest window.
  int64_t tokens = 0;                         ///< In all windows.
  std::string hash;                           ///< Of all ids and cuts.
  std::vector<std::string> findings;          ///< Sentences about what is amiss.
  Json facts = Json::object();                ///< For the report.
  CalibrationForward forward{};               ///< The runtime, unless a stage says otherwise.
};

/// Tokens that calibration will run over, as far as sizes of files tell: text has about 3.5 bytes a
/// token.
int64_t expected_tokens(const CalibrationOptions& options);
/// Tokens a window. Throws Error(kUsage) for a context below 8 or beyond the model's.
int64_t calibration_window(const CalibrationOptions& options, const Model& model);
/// Reads the files and cuts the stream of their documents into windows, the remainder dropped
/// unless it is all there is. Throws Error(kUsage) without files or as calibration_window does,
/// Error(kBadInput) for fewer tokens than `calibration_tokens` asks for.
CalibrationData load_calibration(const CalibrationOptions& options, const Model& model);

/// Throws Error(kUnsupported) for an encoder: calibration follows what a decoder's blocks and head
/// are given.
void refuse_encoder(const Model& model);

/// What is amiss with the windows: fewer tokens than the widest layer has inputs, no BOS though the
/// model knows one or two in a row, no chat template though the model has one, the same text again
/// and again, one script only for a vocabulary that has many.
std::vector<std::string> lint_calibration(const CalibrationData& data, const Model& model,
                                          bool any_chat);

}  // namespace slmc
