// Blocks of 32: an f16 scale d and 32 signed bytes; x = d * q. Source: ggml block_q8_0.
#include <cmath>
#include <cstring>

#include "compress/core/half.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 34;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  std::memcpy(parts.codes, block + 2, 32);
  parts.scales[0] = 1;
}

void pack(const BlockParts& parts, std::byte* block) {
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, parts.codes, 32);
}

// The format holds -128 too; no encoder uses it.
constexpr BlockLayout kLayout = {.low = -127, .high = 127, .unpack = unpack, .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

/// d = max|x| / 127; q = x / d rounded half away from zero, with the f32 d; d itself is stored
/// rounded to f16. Where 1 / d overflows (max|x| below 4e-37) the stored scale is zero and so are
/// the codes.
void encode(const float* in, int64_t n, std::byte* out) {
  for (int64_t block = 0; block < n / 32; ++block, in += 32, out += kBytes) {
    float largest = 0.0f;
    for (int64_t i = 0; i < 32; ++i) largest = std::fmax(largest, std::fabs(in[i]));
    const float scale = largest / 127.0f;
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    const uint16_t bits = float_to_f16(scale);
    std::memcpy(out, &bits, 2);
    for (int64_t i = 0; i < 32; ++i) {
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
                                   .block = 32,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
