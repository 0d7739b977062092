// Quantization that looks at the layers' inputs: the model is run over the calibration windows
// block by block, each block behind those that are quantized already, so that every layer is fitted
// to the inputs it will really get. One block's weights are resident at a time.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"
#include "formats/model_writer.h"
#include "quantize/calibration.h"
#include "quantize/imatrix.h"
#include "quantize/method.h"
#include "quantize/observer.h"
#include "quantize/scaled_weights.h"

namespace slmc {

struct CalibratedJob {
  const Model* model = nullptr;
  const ScaledWeights* weights = nullptr;  ///< The same model, smoothed or not.
  const std::vector<OutputTensor>* targets = nullptr;
  const Method* method = nullptr;
  MethodOptions method_options;
  const CalibrationData* data = nullptr;      ///< Either this,
  const ImportanceMatrix* imatrix = nullptr;  ///< or ready statistics.
  const Observer* observer = nullptr;         ///< For types with a fixed scale of inputs.
  std::map<std::string, Json> known{};        ///< What the report says of tensors besides.
  bool allow_fallback = false;                ///< Round to nearest where the method cannot be used.
  std::string facts_path;    ///< Beside the output: what was found out, for a resumed report.
  std::string spill_folder;  ///< Not empty: hidden states go into a file there.
};

/// What became of one tensor.
struct TensorOutcome {
  Distortion distortion{0, -1, 0};  ///< squared_weight < 0: a killed run had it, unrecorded.
  std::string method_used;
  Json facts = Json::object();  ///< "tokens", "weighted_error", "damping", "dead_columns", "note".
};

/// Encodes every tensor that the writer has not yet, in the order the model computes; those it has
/// are read back and used as they are, so a resumed run gives the same bytes. Outcomes are in the
/// order of `targets`. Throws Error(kUnsupported) naming the tensor where the method cannot be used
/// and `allow_fallback` is off.
std::vector<TensorOutcome> encode_calibrated(const CalibratedJob& job, ModelWriter& writer,
                                             Context& context);

/// What a prediction follows from besides the model.
struct CalibratedSize {
  int64_t tokens = 0, context = 0;  ///< Of all windows, of the longest.
  bool spill = false;               ///< Hidden states are in a file.
  int threads = 1;
};
/// Bytes of the embedding while windows' ids are looked up: its pages, and repacked.
uint64_t embedding_bytes(const Model& model);
/// Bytes of memory (of the machine, not of a GPU) that encode_calibrated holds at most.
uint64_t calibrated_peak_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                               const Method& method, const CalibratedSize& size,
                               const CalibrationForward& forward);
/// Of these bytes, the hidden states of so many tokens.
uint64_t calibrated_states_bytes(const Model& model, const Method& method, int64_t tokens);
/// The same of the device's own memory; 0 on the cpu.
uint64_t calibrated_device_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                                 const CalibratedSize& size, const CalibrationForward& forward);

/// Seconds of one pass of `tokens` through the model, by the runtime's rates on one processor.
double forward_seconds(const Model& model, int64_t tokens);
/// Seconds that encode_calibrated takes over `tokens`, by the same rates. `smoothed`: the blocks
/// are passed through once more, to choose scales.
double calibrated_seconds(const Model& model, int64_t tokens, bool smoothed);
/// The same, from what `data.forward` takes here for the first block over a few of the windows, and
/// `method` for some rows of each of its weights.
double probed_seconds(const Model& model, const std::vector<OutputTensor>& targets,
                      const Method& method, const MethodOptions& options,
                      const CalibrationData& data, bool smoothed);

}  // namespace slmc
