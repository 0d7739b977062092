// Quantization-aware training: the network runs on the values that the exported file will hold, and
// gradients go to the weights behind them as if nothing had been rounded (straight-through: Bengio
// et al. 2013, section 4; for language models LLM-QAT, Liu et al. 2023). Scales are trained too
// (learned_scales.h), or are those that quantize's method "nearest" finds for the weights as they
// are at each step; then quantizing the last weights gives the file that was trained, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "formats/model.h"

namespace slmc {

struct ParameterLayout;
struct ParameterSlot;

/// Types of a model's tensors in a file, by their names.
using StoredTypes = std::map<std::string, DType>;

/// Those that `slmc quantize --scheme` gives a model whose weights are floats of type `kept`;
/// without a scheme, that type for all. Throws Error(kUsage) for an unknown scheme.
StoredTypes written_types(const Architecture& arch, const std::string& scheme, DType kept);
/// The same for training through the rounding of what is written as `path`. Throws
/// Error(kUnsupported) for a model whose query weights that holds scaled (as a GGUF of some Gemmas
/// does).
StoredTypes stored_types(const Architecture& arch, const std::string& scheme, DType kept,
                         const std::string& path);

/// Blocks of `in` [rows, columns] by quantize's method "nearest". Works in the calling thread.
void encode_nearest(DType type, const float* in, int64_t rows, int64_t columns, std::byte* out);
/// out [rows, columns]: what a file holds of `in` as `type`. Works in the calling thread.
void round_rows(DType type, const float* in, int64_t rows, int64_t columns, float* out);
/// Calls work(slot, type, first row, rows) for pieces of every slot, kF32 where it has no type, on
/// all threads.
void for_stored_rows(
    const ParameterLayout& layout, const StoredTypes& types,
    const std::function<void(const ParameterSlot&, DType, int64_t, int64_t)>& work);
/// What a file holds of every tensor of a layout that has a type, by its trained scales where the
/// layout has some (learned_scales.h), else as round_rows; others are copied.
void round_layout(const ParameterLayout& layout, const StoredTypes& types, const float* weights,
                  float* rounded);

/// Throws unless the tensors of `written` are what round_rows makes of those of `network`, or
/// encode_scaled of those that have scales in it: a bug.
void check_stored(const Model& written, const WeightSource& network, const StoredTypes& types);

}  // namespace slmc
