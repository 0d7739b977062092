// AVX-512 with VNNI: the integer dot products in one instruction, exact as the others are.
#include <immintrin.h>

#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

#include "compress/runtime/kernels/avx512_body.h"

/// w + 128 as unsigned bytes; 128 * sum(x) is taken off beforehand.
template <int kTokens>
SLMC_VECTOR void dot_q8(const std::byte* data, const int8_t* codes, int64_t stride,
                        const int32_t* sums, int64_t blocks, I* dots) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dots[t].v = _mm512_set1_epi32(-128 * sums[t * blocks]);
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
    const __m512i w = _mm512_xor_si512(_mm512_loadu_si512(data + v * 64), flip);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      dots[t].v = _mm512_dpbusd_epi32(dots[t].v, w, four_codes(codes + t * stride + v * 4));
  }
}

template <int kTokens>
SLMC_VECTOR void dot_q4(const std::byte* data, const int8_t* codes, int64_t stride,
                        const int32_t* sums, int64_t blocks, I* dots) {
  const __m512i mask = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dots[t].v = _mm512_set1_epi32(-8 * sums[t * blocks]);
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512i both = _mm512_loadu_si512(data + v * 64);
    const __m512i low = _mm512_and_si512(both, mask),
                  high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* x = codes + t * stride + v * 8;
      dots[t].v = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(dots[t].v, low, four_codes(x)), high,
                                      four_codes(x + 4));
    }
  }
}

#include "compress/runtime/kernels/simd_body.h"

}  // namespace

const Set& avx512vnni_set() {
  static constexpr Set set = {"avx512vnni",  tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
