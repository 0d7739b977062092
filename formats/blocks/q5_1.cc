// Blocks of 32: an f16 scale d, an f16 minimum m, fifth bits and nibbles as in q5_0; x = d * q + m.
// Source: ggml block_q5_1.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 24;

void unpack(const std::byte* block, BlockParts& parts) {
  uint32_t high;
  std::memcpy(&parts.d, block, 2);
  std::memcpy(&parts.dmin, block + 2, 2);
  std::memcpy(&high, block + 4, 4);
  parts.dmin ^= 0x8000u;
  parts.scales[0] = 1;
  parts.minimums[0] = 1;
  for (int64_t j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(block[8 + j]);
    const int first = static_cast<int>(high >> j & 1u),
              second = static_cast<int>(high >> (j + 16) & 1u);
    parts.codes[j] = static_cast<int8_t>((pair & 15) | first << 4);
    parts.codes[j + 16] = static_cast<int8_t>(pair >> 4 | second << 4);
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  const auto minimum = static_cast<uint16_t>(parts.dmin ^ 0x8000u);
  uint32_t high = 0;
  for (int64_t j = 0; j < 16; ++j) {
    const auto first = static_cast<uint32_t>(parts.codes[j]);
    const auto second = static_cast<uint32_t>(parts.codes[j + 16]);
    high |= (first >> 4) << j | (second >> 4) << (j + 16);
    block[8 + j] = static_cast<std::byte>((first & 15u) | (second & 15u) << 4);
  }
  std::memcpy(block, &parts.d, 2);
  std::memcpy(block + 2, &minimum, 2);
  std::memcpy(block + 4, &high, 4);
}

constexpr BlockLayout kLayout = {.high = 31, .minimum = true, .unpack = unpack, .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

void encode(const float* in, int64_t n, std::byte* out) {
  encode_affine(kLayout, kBytes, in, n, out);
}

}  // namespace

const BlockCodec& codec_q5_1();
const BlockCodec& codec_q5_1() {
  static const BlockCodec codec = {.dtype = DType::kQ5_1,
                                   .name = "q5_1",
                                   .block = 32,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
