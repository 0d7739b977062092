// Blocks of 32: an f16 scale d, an f16 minimum m and nibbles as in q4_0; x = d * q + m.
// Source: ggml block_q4_1.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 20;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  std::memcpy(&parts.dmin, block + 2, 2);
  parts.dmin ^= 0x8000u;
  parts.scales[0] = 1;
  parts.minimums[0] = 1;
  for (int64_t j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(block[4 + j]);
    parts.codes[j] = static_cast<int8_t>(pair & 15);
    parts.codes[j + 16] = static_cast<int8_t>(pair >> 4);
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  const auto minimum = static_cast<uint16_t>(parts.dmin ^ 0x8000u);
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, &minimum, 2);
  for (int64_t j = 0; j < 16; ++j)
    block[4 + j] = static_cast<std::byte>(parts.codes[j] | parts.codes[j + 16] << 4);
}

constexpr BlockLayout kLayout = {.high = 15, .minimum = true, .unpack = unpack, .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

void encode(const float* in, int64_t n, std::byte* out) {
  encode_affine(kLayout, kBytes, in, n, out);
}

}  // namespace

const BlockCodec& codec_q4_1();
const BlockCodec& codec_q4_1() {
  static const BlockCodec codec = {.dtype = DType::kQ4_1,
                                   .name = "q4_1",
                                   .block = 32,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
