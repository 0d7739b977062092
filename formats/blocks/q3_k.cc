// Super-blocks of 256 in sub-blocks of 16: 32 bytes of third bits, 64 bytes of two low bits, 12
// bytes of 6-bit scales, f16 d; x = d * (scale - 32) * (q - 4). Element 128h + 32k + l has its low
// bits at 2k of byte 32h + l and its third at 4h + k of byte l. Scale j has its low four bits in
// byte j mod 8 (the low nibble for j < 8) and its upper two at 2(j / 4) of byte 8 + j mod 4.
// Source: ggml block_q3_K.
#include <cstring>

#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kBytes = 110;

void unpack(const std::byte* block, BlockParts& parts) {
  const auto at = [block](int64_t i) { return std::to_integer<int>(block[i]); };
  std::memcpy(&parts.d, block + 108, 2);
  for (int64_t j = 0; j < 16; ++j) {
    const int low = at(96 + j % 8) >> (j < 8 ? 0 : 4) & 15;
    const int high = at(104 + j % 4) >> 2 * (j / 4) & 3;
    parts.scales[j] = static_cast<int8_t>((low | high << 4) - 32);
  }
  for (int64_t i = 0; i < 256; ++i) {
    const int64_t h = i / 128, k = i / 32 % 4, l = i % 32;
    const int low = at(32 + 32 * h + l) >> 2 * k & 3, high = at(l) >> (4 * h + k) & 1;
    parts.codes[i] = static_cast<int8_t>((low | high << 2) - 4);
  }
}

void pack(const BlockParts& parts, std::byte* block) {
  int bytes[108] = {};
  for (int64_t i = 0; i < 256; ++i) {
    const int64_t h = i / 128, k = i / 32 % 4, l = i % 32;
    const int code = parts.codes[i] + 4;
    bytes[32 + 32 * h + l] |= (code & 3) << 2 * k;
    bytes[l] |= code >> 2 << (4 * h + k);
  }
  for (int64_t j = 0; j < 16; ++j) {
    const int scale = parts.scales[j] + 32;
    bytes[96 + j % 8] |= (scale & 15) << (j < 8 ? 0 : 4);
    bytes[104 + j % 4] |= scale >> 4 << 2 * (j / 4);
  }
  for (int64_t i = 0; i < 108; ++i) block[i] = static_cast<std::byte>(bytes[i]);
  std::memcpy(block + 108, &parts.d, 2);
}

constexpr BlockLayout kLayout = {.block = 256,
                                 .sub = 16,
                                 .subs = 16,
                                 .low = -4,
                                 .high = 3,
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

const BlockCodec& codec_q3_k();
const BlockCodec& codec_q3_k() {
  static const BlockCodec codec = {.dtype = DType::kQ3_K,
                                   .name = "q3_k",
                                   .block = 256,
                                   .block_bytes = kBytes,
                                   .decode = decode,
                                   .encode = encode,
                                   .layout = &kLayout,
                                   .grid = grid_of<kLayout>()};
  return codec;
}

}  // namespace slmc
