// The streaming loop of quantization: rows in, encoded rows out in order, on all threads, in
// bounded memory.
#pragma once

#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"
#include "formats/model_writer.h"
#include "quantize/method.h"

namespace slmc {

/// Encodes every tensor of `targets` (the model's, in its order) that the writer has not yet, and
/// returns each one's distortion; those that the writer had from a killed run have `squared_weight`
/// < 0. Throws Error(kBadInput) naming tensor, row and column at the first value that is not
/// finite, and Error(kUnsupported) at one that the target type cannot hold.
std::vector<Distortion> encode_model(const Model& model, const std::vector<OutputTensor>& targets,
                                     const Method& method, ModelWriter& writer, Context& context);

/// Encodes `request.rows` rows of a tensor, of which the first is `first_row`, with the checks of
/// encode_model: errors name `model`, tensor, row and column.
void encode_checked(const Model& model, const OutputTensor& target, const Method& method,
                    const EncodeRequest& request, int64_t first_row, std::byte* out,
                    Distortion* sum);
/// Adds one part's distortion to a sum.
void add_distortion(const Distortion& part, Distortion& sum);

/// Squared error and weight, each column counted by its input's mean square.
struct WeightedError {
  double error = 0, weight = 0;
};
/// Of `request.rows` encoded rows.
WeightedError weighted_error(const EncodeRequest& request, const LinearStatistics& statistics,
                             const std::byte* encoded);

/// The distortion of one tensor, measured from the written file; the same figures as
/// encode_model's.
Distortion measure_tensor(const Model& model, const Model& written, const std::string& name);

/// Bytes that encode_model holds on `threads` threads, mapped source pages included.
uint64_t encode_peak_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                           int threads);

}  // namespace slmc
