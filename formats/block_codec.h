// A block codec: how a quantized type of GGUF is decoded and encoded by plain rounding. One file
// under formats/blocks/ defines `const BlockCodec& slmc::codec_<file>()`; the build finds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/tensor.h"
#include "formats/block_grid.h"
#include "formats/block_layout.h"

namespace slmc {

struct BlockCodec {
  DType dtype;
  std::string name;   ///< "q4_0".
  int64_t block = 1;  ///< Elements a block.
  int64_t block_bytes = 0;
  /// n elements, n % block == 0, into out[n] floats, with ggml's arithmetic.
  void (*decode)(const std::byte* in, int64_t n, float* out) = nullptr;
  /// Plain rounding, without a search. For the types of blocks of 32 with even steps it is ggml's
  /// reference (the `gguf` wheel's quantizer), byte for byte. Inputs are finite.
  void (*encode)(const float* in, int64_t n, std::byte* out) = nullptr;
  const BlockLayout* layout = nullptr;  ///< What a block holds; null for plain float types.
  /// The same for methods that choose codes themselves; null for plain float types.
  const BlockGrid* grid = nullptr;
};

/// All codecs, plain float types included.
const std::vector<const BlockCodec*>& block_codecs();
/// Throws Error(kUnsupported) for a type without a codec.
const BlockCodec& block_codec(DType type);
const BlockCodec* find_block_codec(DType type);

}  // namespace slmc
