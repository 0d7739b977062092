// Blocks of 32: an f16 scale d and 32 signed bytes; x = d * q. Source: ggml block_q8_0.
#include <cmath>
#include <cstring>

#include "compress/core/half.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBlock = 32;
constexpr int64_t kBytes = 34;

void decode(const std::byte* in, int64_t n, float* out) {
  for (int64_t block = 0; block < n / kBlock; ++block, in += kBytes, out += kBlock) {
    uint16_t bits;
    std::memcpy(&bits, in, 2);
    const float scale = f16_to_float(bits);
    for (int64_t i = 0; i < kBlock; ++i)
      out[i] = static_cast<float>(static_cast<int8_t>(in[2 + i])) * scale;
  }
}

/// d = max|x| / 127; q = x / d rounded half away from zero, with the f32 d; d itself is stored
/// rounded to f16. Where 1 / d overflows (max|x| below 4e-37) the stored scale is zero and so are
/// the codes.
void encode(const float* in, int64_t n, std::byte* out) {
  for (int64_t block = 0; block < n / kBlock; ++block, in += kBlock, out += kBytes) {
    float largest = 0.0f;
    for (int64_t i = 0; i < kBlock; ++i) largest = std::fmax(largest, std::fabs(in[i]));
    const float scale = largest / 127.0f;
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    const uint16_t bits = float_to_f16(scale);
    std::memcpy(out, &bits, 2);
    for (int64_t i = 0; i < kBlock; ++i) {
      const float rounded = std::round(in[i] * inverse);
      out[2 + i] =
          static_cast<std::byte>(static_cast<int8_t>(std::isfinite(inverse) ? rounded : 0.0f));
    }
  }
}

}  // namespace

const BlockCodec& codec_q8_0();
const BlockCodec& codec_q8_0() {
  static const BlockCodec codec = {.dtype = DType::kQ8_0,
                                   .name = "q8_0",
                                   .block = kBlock,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode};
  return codec;
}

}  // namespace slmc
