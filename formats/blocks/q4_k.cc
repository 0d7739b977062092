// Super-blocks of 256 in sub-blocks of 32: f16 d, f16 dmin, 12 bytes of 6-bit scales and minimums
// (k_scales.h), 128 bytes of nibbles; 32 bytes hold sub-block 2j in the low and 2j + 1 in the high
// nibbles; x = d * scale * q - dmin * minimum. Source: ggml block_q4_K.
#include <cstring>

#include "formats/block_codec.h"
#include "formats/blocks/k_scales.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 144;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  std::memcpy(&parts.dmin, block + 2, 2);
  unpack_k_scales(block + 4, parts);
  for (int64_t j = 0; j < 4; ++j) {
    for (int64_t i = 0; i < 32; ++i) {
      const int pair = std::to_integer<int>(block[16 + 32 * j + i]);
      parts.codes[64 * j + i] = static_cast<int8_t>(pair & 15);
      parts.codes[64 * j + 32 + i] = static_cast<int8_t>(pair >> 4);
    }
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, &parts.dmin, 2);
  pack_k_scales(parts, block + 4);
  for (int64_t j = 0; j < 4; ++j) {
    const int8_t* codes = parts.codes + 64 * j;
    for (int64_t i = 0; i < 32; ++i)
      block[16 + 32 * j + i] = static_cast<std::byte>(codes[i] | codes[32 + i] << 4);
  }
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 32,
                                 .subs = 8,
                                 .high = 15,
                                 .minimum = true,
                                 .scale_low = 0,
                                 .scale_high = 63,
                                 .unpack = unpack,
                                 .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

/// Without search: scales from the extremes.
void encode(const float* in, int64_t n, std::byte* out) {
  encode_by_extremes(kLayout, kBytes, in, n, out);
}

}  // namespace

const BlockCodec& codec_q4_k();
const BlockCodec& codec_q4_k() {
  static const BlockCodec codec = {.dtype = DType::kQ4_K,
                                   .name = "q4_k",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
