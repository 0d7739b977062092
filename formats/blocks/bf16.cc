// bfloat16: the upper half of a float32, rounded to nearest even.
#include <cstring>

#include "compress/core/half.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

void decode(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + 2 * i, 2);
    out[i] = bf16_to_float(bits);
  }
}

void encode(const float* in, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = float_to_bf16(in[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

}  // namespace

const BlockCodec& codec_bf16();
const BlockCodec& codec_bf16() {
  static const BlockCodec codec = {.dtype = DType::kBF16,
                                   .name = "bf16",
                                   .block = 1,
                                   .block_bytes = 2,
                                   .decode = decode,
                                   .encode = encode};
  return codec;
}

}  // namespace slmc
