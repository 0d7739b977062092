// Blocks of 32: an f16 scale d and 16 bytes; byte j holds element j in its low and element j + 16
// in its high nibble; x = d * (q - 8). Source: ggml block_q4_0.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "compress/core/half.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBlock = 32;
constexpr int64_t kBytes = 18;

void decode(const std::byte* in, int64_t n, float* out) {
  for (int64_t block = 0; block < n / kBlock; ++block, in += kBytes, out += kBlock) {
    uint16_t bits;
    std::memcpy(&bits, in, 2);
    const float scale = f16_to_float(bits);
    for (int64_t j = 0; j < kBlock / 2; ++j) {
      const int code = std::to_integer<int>(in[2 + j]);
      out[j] = static_cast<float>((code & 15) - 8) * scale;
      out[j + kBlock / 2] = static_cast<float>((code >> 4) - 8) * scale;
    }
  }
}

/// d = the first element of largest magnitude / -8, so that element becomes code 0; the others
/// min(15, floor(x / d + 8.5)). Where 1 / d overflows the stored scale is zero and so are the
/// codes.
void encode(const float* in, int64_t n, std::byte* out) {
  for (int64_t block = 0; block < n / kBlock; ++block, in += kBlock, out += kBytes) {
    float extreme = in[0];
    for (int64_t i = 1; i < kBlock; ++i) {
      if (std::fabs(in[i]) > std::fabs(extreme)) extreme = in[i];
    }
    const float scale = extreme / -8.0f;
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    const uint16_t bits = float_to_f16(scale);
    std::memcpy(out, &bits, 2);
    const auto code = [inverse](float x) {
      if (!std::isfinite(inverse)) return 0;
      return std::min(15, static_cast<int>(x * inverse + 8.5f));
    };
    for (int64_t j = 0; j < kBlock / 2; ++j) {
      out[2 + j] = static_cast<std::byte>(code(in[j]) | (code(in[j + kBlock / 2]) << 4));
    }
  }
}

}  // namespace

const BlockCodec& codec_q4_0();
const BlockCodec& codec_q4_0() {
  static const BlockCodec codec = {.dtype = DType::kQ4_0,
                                   .name = "q4_0",
                                   .block = kBlock,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode};
  return codec;
}

}  // namespace slmc
