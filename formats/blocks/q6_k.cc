// Super-blocks of 256 in sub-blocks of 16: 128 bytes of low nibbles, 64 bytes of upper two bits, 16
// signed scales, f16 d last; x = d * scale * (q - 32). Element 128h + 32k + l has its nibble in
// byte 64h + 32(k mod 2) + l (the low one for k < 2) and its upper bits at 2k of byte 32h + l.
// Source: ggml block_q6_K.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 210;

void unpack(const std::byte* block, BlockParts& parts) {
  std::memcpy(&parts.d, block + 208, 2);
  std::memcpy(parts.scales, block + 192, 16);
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t k = 0; k < 4; ++k) {
      const std::byte* low = block + 64 * h + 32 * (k % 2);
      const std::byte* high = block + 128 + 32 * h;
      int8_t* codes = parts.codes + 128 * h + 32 * k;
      for (int64_t l = 0; l < 32; ++l) {
        const int nibble = std::to_integer<int>(low[l]) >> (k < 2 ? 0 : 4) & 15;
        const int upper = std::to_integer<int>(high[l]) >> 2 * k & 3;
        codes[l] = static_cast<int8_t>((nibble | upper << 4) - 32);
      }
    }
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  for (int64_t h = 0; h < 2; ++h) {
    const int8_t* codes = parts.codes + 128 * h;
    const auto code = [codes](int64_t i) { return static_cast<unsigned>(codes[i] + 32); };
    for (int64_t l = 0; l < 64; ++l)
      block[64 * h + l] = static_cast<std::byte>((code(l) & 15u) | (code(l + 64) & 15u) << 4);
    for (int64_t l = 0; l < 32; ++l) {
      block[128 + 32 * h + l] = static_cast<std::byte>(
          code(l) >> 4 | code(l + 32) >> 4 << 2 | code(l + 64) >> 4 << 4 | code(l + 96) >> 4 << 6);
    }
  }
  std::memcpy(block + 192, parts.scales, 16);
  std::memcpy(block + 208, &parts.d, 2);
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 16,
                                 .subs = 16,
                                 .low = -32,
                                 .high = 31,
                                 .scale_low = -128,
                                 .scale_high = 127,
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

const BlockCodec& codec_q6_k();
const BlockCodec& codec_q6_k() {
  static const BlockCodec codec = {.dtype = DType::kQ6_K,
                                   .name = "q6_k",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
