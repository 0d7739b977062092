// A block codec: how a quantized type of GGUF is decoded and encoded by plain rounding. One file
// under formats/blocks/ defines `const BlockCodec& slmc::codec_<file>()`; the build finds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/tensor.h"

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

struct BlockCodec {
  DType dtype;
  std::string name;   ///< "q4_0".
  int64_t block = 1;  ///< Elements a block.
  int64_t block_bytes = 0;
  /// n elements, n % block == 0, into out[n] floats, with ggml's arithmetic.
  void (*decode)(const std::byte* in, int64_t n, float* out) = nullptr;
  /// The reference rounding of ggml (the `gguf` wheel's quantizer), byte for byte. Inputs are
  /// finite.
  void (*encode)(const float* in, int64_t n, std::byte* out) = nullptr;
  /// Null for plain float types, and for types that only `encode` can write.
  const BlockGrid* grid = nullptr;
};

/// All codecs, plain float types included.
const std::vector<const BlockCodec*>& block_codecs();
/// Throws Error(kUnsupported) for a type without a codec.
const BlockCodec& block_codec(DType type);
const BlockCodec* find_block_codec(DType type);

}  // namespace slmc
