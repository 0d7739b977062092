#include "formats/block_grid.h"

#include "formats/block_search.h"

namespace slmc {

BlockGrid grid_levels(const BlockLayout& layout) {
  static const auto levels = [] {
    struct Levels {
      float integers[256], table[16];
    } made;
    for (int i = 0; i < 256; ++i) made.integers[i] = static_cast<float>(i - 128);
    for (int i = 0; i < 16; ++i) made.table[i] = static_cast<float>(kIq4Values[i]);
    return made;
  }();
  if (layout.table != nullptr) return {.codes = 16, .levels = levels.table};
  return {.codes = layout.high - layout.low + 1, .levels = levels.integers + 128 + layout.low};
}

void plan_grid_block(const BlockLayout& layout, const float* values, const float* weights,
                     std::byte* out) {
  BlockParts parts;
  search_blocks({.layout = &layout,
                 .x = values,
                 .weights = weights,
                 .period = layout.block,
                 .blocks = 1,
                 .parts = &parts});
  layout.pack(parts, out);
}

void grid_parameters(const BlockLayout& layout, const std::byte* in, float* scale, float* offset) {
  BlockParts parts;
  layout.unpack(in, parts);
  for (int64_t i = 0; i < layout.block; ++i) {
    scale[i] = sub_scale(parts, i / layout.sub);
    offset[i] = layout.minimum ? -sub_minimum(layout, parts, i / layout.sub) : 0.0f;
  }
}

void pack_grid_codes(const BlockLayout& layout, const uint8_t* codes, std::byte* out) {
  BlockParts parts;
  layout.unpack(out, parts);
  for (int64_t i = 0; i < layout.block; ++i) {
    parts.codes[i] = layout.table != nullptr ? layout.table[codes[i]]
                                             : static_cast<int8_t>(layout.low + codes[i]);
  }
  layout.pack(parts, out);
}

}  // namespace slmc
