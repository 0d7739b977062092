// Plain float32, little-endian as the machine's own.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {

const BlockCodec& codec_f32();
const BlockCodec& codec_f32() {
  static const BlockCodec codec = {
      .dtype = DType::kF32,
      .name = "f32",
      .block = 1,
      .block_bytes = 4,
      .decode = [](const std::byte* in, int64_t n,
                   float* out) { std::memcpy(out, in, static_cast<size_t>(n) * 4); },
      .encode = [](const float* in, int64_t n,
                   std::byte* out) { std::memcpy(out, in, static_cast<size_t>(n) * 4); },
  };
  return codec;
}

}  // namespace slmc
