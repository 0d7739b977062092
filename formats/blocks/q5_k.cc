// As q4_k, with 32 bytes of fifth bits before the nibbles: bit j of byte i is that of element i of
// sub-block j. Source: ggml block_q5_K.
#include <cstring>

#include "formats/block_codec.h"
#include "formats/blocks/k_scales.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 176;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  std::memcpy(&parts.dmin, block + 2, 2);
  unpack_k_scales(block + 4, parts);
  for (int64_t j = 0; j < 4; ++j) {
    for (int64_t i = 0; i < 32; ++i) {
      const int high = std::to_integer<int>(block[16 + i]) >> 2 * j;
      const int pair = std::to_integer<int>(block[48 + 32 * j + i]);
      parts.codes[64 * j + i] = static_cast<int8_t>((pair & 15) | (high & 1) << 4);
      parts.codes[64 * j + 32 + i] = static_cast<int8_t>(pair >> 4 | (high >> 1 & 1) << 4);
    }
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, &parts.dmin, 2);
  pack_k_scales(parts, block + 4);
  for (int64_t i = 0; i < 32; ++i) {
    int high = 0;
    for (int64_t j = 0; j < 8; ++j) high |= parts.codes[32 * j + i] >> 4 << j;
    block[16 + i] = static_cast<std::byte>(high);
  }
  for (int64_t j = 0; j < 4; ++j) {
    const int8_t* codes = parts.codes + 64 * j;
    for (int64_t i = 0; i < 32; ++i)
      block[48 + 32 * j + i] = static_cast<std::byte>((codes[i] & 15) | (codes[32 + i] & 15) << 4);
  }
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 32,
                                 .subs = 8,
                                 .high = 31,
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

const BlockCodec& codec_q5_k();
const BlockCodec& codec_q5_k() {
  static const BlockCodec codec = {.dtype = DType::kQ5_K,
                                   .name = "q5_k",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
