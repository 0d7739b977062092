// The types of compressed-tensors' integers, in slmc's own blocks (formats/blocks/group.h): signed
// with a scale, or unsigned with a zero point too, for 32, 64 or 128 columns or for a whole row.
// They have no number in ggml, so no GGUF can hold them.
#pragma once

#include <string>
#include <vector>

#include "compress/core/tensor.h"

namespace slmc {

inline constexpr DType kI4_G32{2000}, kI4_G64{2001}, kI4_G128{2002}, kI4_Row{2003};
inline constexpr DType kU4_G32{2010}, kU4_G64{2011}, kU4_G128{2012}, kU4_Row{2013};
inline constexpr DType kI8_G32{2020}, kI8_G64{2021}, kI8_G128{2022}, kI8_Row{2023};
/// The same as kI8_Row, for inputs rounded to 8 bits: with a scale for each token, or with one that
/// calibration has found and that each block holds beside the weight's.
inline constexpr DType kI8A8_Row{2024}, kI8S8_Row{2025};

/// How the inputs of a layer are rounded before they are multiplied.
enum class InputRounding { kNone, kToken, kStatic };

struct GroupFacts {
  int bits = 4;
  int64_t group = 0;  ///< Columns that share a scale; 0: the row.
  bool zero_point = false;
  InputRounding inputs = InputRounding::kNone;

  bool operator==(const GroupFacts&) const = default;
};

bool is_group_type(DType type);
GroupFacts group_facts(DType type);
/// The type with those facts. Throws Error(kUnsupported) where there is none.
DType group_type(const GroupFacts& facts, const std::string& where);
/// The nearest number that f16 and bf16 both hold, as all scales are; never below 2^-24.
float storable_scale(float scale);

/// Chooses scales (and zero points) for the n values of one row and writes its blocks, nearest
/// codes included; squared errors count by `weights` [n] (null: all one). Only positive scales that
/// f16 and bf16 both hold, unlike the search over layouts (formats/block_search.h).
void plan_group_row(DType type, const float* values, const float* weights, int64_t n,
                    std::byte* out);

/// The scale of a layer's inputs that the blocks of kI8S8_Row hold, 0 until it is set.
float input_scale(const TensorView& weight);
/// Sets it in `bytes` of such blocks. Throws Error(kBadInput) unless it is positive and finite.
void set_input_scale(float scale, std::byte* blocks, uint64_t bytes);

}  // namespace slmc
