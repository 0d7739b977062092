// What running a model block by block holds at a time, for predictions.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

/// Bytes of a model's pieces.
struct Pieces {
  const Architecture* arch = nullptr;
  uint64_t block = 0;  ///< The largest block, repacked.
  uint64_t head = 0;   ///< The head, repacked; or the embedding, if that is larger.
  uint64_t pages = 0;  ///< The largest tensor as its file has it, while it is read.
};
Pieces pieces_of(const Model& model);
/// Of the model that a plan will make.
Pieces pieces_of(const Architecture& arch, const std::vector<PlanRow>& rows);

/// Of a tensor that takes `in_file` bytes, once repacked, at most.
uint64_t repacked_bytes(uint64_t in_file, int64_t elements);
/// Floats that a block works in over a window, beside the residual stream's own.
int64_t scratch_floats(const Architecture& arch, int64_t context);

/// Peak bytes of evaluating `models` (the teacher among them, one twice that is evaluated in two
/// modes) over at most `tokens` tokens (0: any number) in windows of `context`, over what the
/// program itself takes.
uint64_t streamed_bytes(const std::vector<Pieces>& models, int64_t context, int64_t tokens);

}  // namespace slmc
