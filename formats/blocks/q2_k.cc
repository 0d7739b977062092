// Super-blocks of 256 in sub-blocks of 16: 16 bytes with a 4-bit scale (low) and a 4-bit minimum,
// 64 bytes of two bits, f16 d, f16 dmin; x = d * scale * q - dmin * minimum. Element 128h + 32k + l
// lies at bit 2k of byte 32h + l. Source: ggml block_q2_K.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 84;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block + 80, 2);
  std::memcpy(&parts.dmin, block + 82, 2);
  for (int64_t j = 0; j < 16; ++j) {
    parts.scales[j] = static_cast<int8_t>(std::to_integer<int>(block[j]) & 15);
    parts.minimums[j] = static_cast<uint8_t>(std::to_integer<int>(block[j]) >> 4);
  }
  for (int64_t i = 0; i < 256; ++i) {
    const int64_t h = i / 128, k = i / 32 % 4, l = i % 32;
    parts.codes[i] = static_cast<int8_t>(std::to_integer<int>(block[16 + 32 * h + l]) >> 2 * k & 3);
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  for (int64_t j = 0; j < 16; ++j)
    block[j] = static_cast<std::byte>(parts.scales[j] | parts.minimums[j] << 4);
  for (int64_t h = 0; h < 2; ++h) {
    const int8_t* codes = parts.codes + 128 * h;
    for (int64_t l = 0; l < 32; ++l) {
      block[16 + 32 * h + l] = static_cast<std::byte>(codes[l] | codes[l + 32] << 2 |
                                                      codes[l + 64] << 4 | codes[l + 96] << 6);
    }
  }
  std::memcpy(block + 80, &parts.d, 2);
  std::memcpy(block + 82, &parts.dmin, 2);
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 16,
                                 .subs = 16,
                                 .high = 3,
                                 .minimum = true,
                                 .scale_low = 0,
                                 .scale_high = 15,
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

const BlockCodec& codec_q2_k();
const BlockCodec& codec_q2_k() {
  static const BlockCodec codec = {.dtype = DType::kQ2_K,
                                   .name = "q2_k",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
