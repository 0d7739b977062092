// AVX-512 without VNNI: F, BW, DQ, VL.
#include <immintrin.h>

#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

#include "compress/runtime/kernels/avx512_body.h"

/// |w| <= 128 times x with w's sign: two products stay within 2 * 128 * 127 = 32512, so the 16-bit
/// sums are exact, w = -128 included.
template <int kTokens, int kVectors>
SLMC_VECTOR void dot_8(const std::byte* data, const int8_t* codes, int64_t stride, const int32_t*,
                       int64_t, I* dots) {
  const __m512i zero = _mm512_setzero_si512(), ones = _mm512_set1_epi16(1);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dots[t].v = zero;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m512i w = _mm512_loadu_si512(data + v * 64), size = _mm512_abs_epi8(w);
    const __mmask64 negative = _mm512_movepi8_mask(w);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512i x = four_codes(codes + t * stride + v * 4);
      const __m512i pairs = _mm512_maddubs_epi16(size, _mm512_mask_sub_epi8(x, negative, zero, x));
      dots[t].v = _mm512_add_epi32(dots[t].v, _mm512_madd_epi16(pairs, ones));
    }
  }
}

/// Unsigned nibbles; eight sums of two products stay within 8 * 2 * 15 * 127 = 30480, so they add
/// up in 16 bits.
template <int kTokens, int kBias>
SLMC_VECTOR void dot_4(const std::byte* data, const int8_t* codes, int64_t stride,
                       const int32_t* sums, int64_t step, I* dots) {
  const __m512i mask = _mm512_set1_epi8(15), ones = _mm512_set1_epi16(1);
  __m512i pairs[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) pairs[t] = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512i both = _mm512_loadu_si512(data + v * 64);
    const __m512i low = _mm512_and_si512(both, mask),
                  high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* x = codes + t * stride + v * 8;
      pairs[t] = _mm512_add_epi16(pairs[t], _mm512_maddubs_epi16(low, four_codes(x)));
      pairs[t] = _mm512_add_epi16(pairs[t], _mm512_maddubs_epi16(high, four_codes(x + 4)));
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    dots[t].v = _mm512_sub_epi32(_mm512_madd_epi16(pairs[t], ones),
                                 _mm512_set1_epi32(kBias * sum_of<8>(sums + t * step)));
  }
}

#include "compress/runtime/kernels/simd_body.h"

}  // namespace

const Set& avx512_set() {
  static constexpr Set set = {"avx512",      tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
