// The search for the scales of quantized blocks: of the scales that a block type can store, those
// for which the nearest codes leave the least squared error, weighted or not. Each block is a chain
// of its own, worked on in a lane of a vector register, so that every instruction set and any
// number of lanes give the same bits. Plain structs only: included by files with flags of their
// own.
#pragma once

#include <cstdint>

#include "formats/block_layout.h"

namespace slmc {

struct BlockSearch {
  const BlockLayout* layout = nullptr;
  const float* x = nullptr;  ///< [blocks * layout->block], finite.
  /// Of element i weights[(phase + i) % period], not negative; null: all one. `period` and `phase`
  /// are multiples of layout->block.
  const float* weights = nullptr;
  int64_t period = 0, phase = 0;
  int64_t blocks = 0;
  BlockParts* parts = nullptr;  ///< [blocks]: scales and nearest codes.
};

/// By the instructions that every processor of the architecture has; the others give the same bits.
void search_blocks(const BlockSearch& search);

}  // namespace slmc
