// Blocks of 32: an f16 scale d and 16 bytes; byte j holds element j in its low and element j + 16
// in its high nibble; x = d * (q - 8). Source: ggml block_q4_0.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 18;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  parts.scales[0] = 1;
  for (int64_t j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(block[2 + j]);
    parts.codes[j] = static_cast<int8_t>((pair & 15) - 8);
    parts.codes[j + 16] = static_cast<int8_t>((pair >> 4) - 8);
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  std::memcpy(block, &parts.d, 2);
  for (int64_t j = 0; j < 16; ++j)
    block[2 + j] = static_cast<std::byte>((parts.codes[j] + 8) | (parts.codes[j + 16] + 8) << 4);
}

constexpr BlockLayout kLayout = {.low = -8, .high = 7, .unpack = unpack, .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

void encode(const float* in, int64_t n, std::byte* out) {
  encode_symmetric(kLayout, kBytes, in, n, out);
}

}  // namespace

const BlockCodec& codec_q4_0();
const BlockCodec& codec_q4_0() {
  static const BlockCodec codec = {.dtype = DType::kQ4_0,
                                   .name = "q4_0",
                                   .block = 32,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
