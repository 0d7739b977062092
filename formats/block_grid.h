// A block type as the methods that choose codes themselves see it: levels, and the parameters that
// turn a level into a value. Made for every codec from its layout.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/block_layout.h"

namespace slmc {

/// A block type taken apart for methods that choose codes themselves (error feedback, importance
/// weights). One block's values are
///     value[i] = scale[i] * levels[code[i]] + offset[i]
/// in f32, each operation rounded, as decode computes them. Parameters (scales, minima) are chosen
/// once and are from then on what is stored, so a code that is best for scale[i] and offset[i] is
/// best in the file.
struct BlockGrid {
  int32_t codes = 0;              ///< Codes are 0 to codes - 1.
  const float* levels = nullptr;  ///< [codes], ascending: -8 to 7 for q4_0, 0 to 15 for q4_k.
  /// The search for a block's parameters: least sum of weights[i] * (value[i] - decoded[i])^2 over
  /// `values` [block] when every code is the nearest one; `weights` [block] are not negative, null
  /// means the type's own habit. Writes a whole block to `out`: parameters and nearest codes.
  /// Inputs are finite.
  void (*plan)(const float* values, const float* weights, std::byte* out) = nullptr;
  /// scale[block] and offset[block] of a block as stored; `scale` may be negative or zero.
  void (*parameters)(const std::byte* in, float* scale, float* offset) = nullptr;
  /// Puts codes [block] into a block whose parameters stay.
  void (*pack)(const uint8_t* codes, std::byte* out) = nullptr;
};

// What grid_of binds to a layout.
void plan_grid_block(const BlockLayout& layout, const float* values, const float* weights,
                     std::byte* out);
void grid_parameters(const BlockLayout& layout, const std::byte* in, float* scale, float* offset);
void pack_grid_codes(const BlockLayout& layout, const uint8_t* codes, std::byte* out);
BlockGrid grid_levels(const BlockLayout& layout);

/// The grid of a layout.
template <const BlockLayout& kLayout>
const BlockGrid* grid_of() {
  static const BlockGrid grid = [] {
    BlockGrid made = grid_levels(kLayout);
    made.plan = [](const float* values, const float* weights, std::byte* out) {
      plan_grid_block(kLayout, values, weights, out);
    };
    made.parameters = [](const std::byte* in, float* scale, float* offset) {
      grid_parameters(kLayout, in, scale, offset);
    };
    made.pack = [](const uint8_t* codes, std::byte* out) { pack_grid_codes(kLayout, codes, out); };
    return made;
  }();
  return &grid;
}

}  // namespace slmc
