// Blocks of 32: an f16 scale d and nibbles as in q4_0 that are indices into a table of 16 values,
// denser near zero; x = d * table[q]. Source: ggml block_iq4_nl.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 18;

/// Index of a value of the table.
int index_of(int value) {
  int index = 0;
  while (kIq4Values[index] < value) ++index;
  return index;
}

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block, 2);
  parts.scales[0] = 1;
  for (int64_t j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(block[2 + j]);
    parts.codes[j] = kIq4Values[pair & 15];
    parts.codes[j + 16] = kIq4Values[pair >> 4];
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  std::memcpy(block, &parts.d, 2);
  for (int64_t j = 0; j < 16; ++j)
    block[2 + j] =
        static_cast<std::byte>(index_of(parts.codes[j]) | index_of(parts.codes[j + 16]) << 4);
}

constexpr BlockLayout kLayout = {
    .low = -127, .high = 113, .table = kIq4Values, .unpack = unpack, .pack = pack};

void decode(const std::byte* in, int64_t n, float* out) {
  decode_blocks(kLayout, kBytes, in, n, out);
}

/// Without search: scales from the extremes.
void encode(const float* in, int64_t n, std::byte* out) {
  encode_by_extremes(kLayout, kBytes, in, n, out);
}

}  // namespace

const BlockCodec& codec_iq4_nl();
const BlockCodec& codec_iq4_nl() {
  static const BlockCodec codec = {.dtype = DType::kIQ4_NL,
                                   .name = "iq4_nl",
                                   .block = 32,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
