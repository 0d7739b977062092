// A block codec: how a quantized type of GGUF is decoded and encoded by plain rounding. One file
// under formats/blocks/ defines `const BlockCodec& slmc::codec_<file>()`; the build finds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/tensor.h"

namespace slmc {

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
};

/// All codecs, plain float types included.
const std::vector<const BlockCodec*>& block_codecs();
/// Throws Error(kUnsupported) for a type without a codec.
const BlockCodec& block_codec(DType type);
const BlockCodec* find_block_codec(DType type);

}  // namespace slmc
