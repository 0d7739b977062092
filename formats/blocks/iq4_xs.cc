// Super-blocks of 256 in sub-blocks of 32: f16 d, two bytes with the upper two bits of eight
// scales, four bytes with their low nibbles (the low one first), 128 bytes of nibbles, 16 a
// sub-block, that are indices as in iq4_nl; x = d * (scale - 32) * table[q]. Source: ggml
// block_iq4_xs.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 136;

/// Index of a value of the table.
int index_of(int value) {
  int index = 0;
  while (kIq4Values[index] < value) ++index;
  return index;
}

void unpack(const std::byte* block, BlockParts& parts) {
  uint16_t high;
  std::memcpy(&parts.d, block, 2);
  std::memcpy(&high, block + 2, 2);
  for (int64_t j = 0; j < 8; ++j) {
    const int low = std::to_integer<int>(block[4 + j / 2]) >> 4 * (j % 2) & 15;
    parts.scales[j] = static_cast<int8_t>((low | (high >> 2 * j & 3) << 4) - 32);
    for (int64_t i = 0; i < 16; ++i) {
      const int pair = std::to_integer<int>(block[8 + 16 * j + i]);
      parts.codes[32 * j + i] = kIq4Values[pair & 15];
      parts.codes[32 * j + 16 + i] = kIq4Values[pair >> 4];
    }
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  int high = 0, low[4] = {};
  for (int64_t j = 0; j < 8; ++j) {
    const int scale = parts.scales[j] + 32;
    low[j / 2] |= (scale & 15) << 4 * (j % 2);
    high |= scale >> 4 << 2 * j;
    const int8_t* codes = parts.codes + 32 * j;
    for (int64_t i = 0; i < 16; ++i)
      block[8 + 16 * j + i] =
          static_cast<std::byte>(index_of(codes[i]) | index_of(codes[16 + i]) << 4);
  }
  const auto bits = static_cast<uint16_t>(high);
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, &bits, 2);
  for (int64_t i = 0; i < 4; ++i) block[4 + i] = static_cast<std::byte>(low[i]);
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 32,
                                 .subs = 8,
                                 .low = -127,
                                 .high = 113,
                                 .table = kIq4Values,
                                 .scale_low = -32,
                                 .scale_high = 31,
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

const BlockCodec& codec_iq4_xs();
const BlockCodec& codec_iq4_xs() {
  static const BlockCodec codec = {.dtype = DType::kIQ4_XS,
                                   .name = "iq4_xs",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
