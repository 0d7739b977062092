// The streaming half of pruning: from a source and a decision to the writer, one weight at a time.
#pragma once

#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"
#include "formats/model_writer.h"
#include "prune/mask.h"
#include "prune/structure.h"

namespace slmc {

/// True for the weights that masks apply to: the linear layers of blocks. Embeddings, head and
/// norms are never touched.
bool is_maskable(const TensorInfo& info);

/// What a tensor becomes: its own float type; f16 for a quantized one; f32 for vectors in a GGUF,
/// as llama.cpp needs.
DType pruned_type(const TensorInfo& info, bool gguf);

/// Writes every tensor, the maskable ones with their mask.
void write_masked(const Model& model, const std::vector<OutputTensor>& targets,
                  const Metric& metric, const Sparsity& sparsity, MaskScope scope,
                  ModelWriter& writer, Context& context);

/// Writes what `structure` keeps and returns {"layer", "from_layer", "neurons", "kept_score_share"}
/// for each layer. `targets` are the smaller model's tensors.
Json write_reduced(const Model& model, const std::vector<OutputTensor>& targets,
                   const Metric& metric, const Structure& structure, ModelWriter& writer,
                   Context& context);

/// Bytes held while the largest weight is scored and written.
uint64_t masked_peak_bytes(const Model& model);
uint64_t reduced_peak_bytes(const Model& model, const Structure& structure);

}  // namespace slmc
