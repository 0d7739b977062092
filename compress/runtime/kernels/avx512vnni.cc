// AVX-512 with VNNI: the integer dot products in one instruction, exact as the others are.
#include <immintrin.h>

#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

#include "compress/runtime/kernels/avx512_body.h"

#if defined(SLMC_EMULATE_VNNI)
// For tests on processors without the instruction: sum[i] + the four products of lane i, exact.
SLMC_VECTOR __m512i dot_product(__m512i sum, __m512i w, __m512i x) {
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i even = _mm512_mullo_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)),
                                          _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
  const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8));
  return _mm512_add_epi32(
      sum, _mm512_add_epi32(_mm512_madd_epi16(even, ones), _mm512_madd_epi16(odd, ones)));
}
#else
SLMC_VECTOR __m512i dot_product(__m512i sum, __m512i w, __m512i x) {
  return _mm512_dpbusd_epi32(sum, w, x);
}
#endif

/// w + 128 as unsigned bytes; 128 * sum(x) is taken off beforehand.
template <int kTokens, int kVectors>
SLMC_VECTOR void dot_8(const std::byte* data, const int8_t* codes, int64_t stride,
                       const int32_t* sums, int64_t step, I* dots) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t)
    dots[t].v = _mm512_set1_epi32(-128 * sum_of<kVectors>(sums + t * step));
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const __m512i w = _mm512_xor_si512(_mm512_loadu_si512(data + v * 64), flip);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      dots[t].v = dot_product(dots[t].v, w, four_codes(codes + t * stride + v * 4));
  }
}

template <int kTokens, int kBias>
SLMC_VECTOR void dot_4(const std::byte* data, const int8_t* codes, int64_t stride,
                       const int32_t* sums, int64_t step, I* dots) {
  const __m512i mask = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t)
    dots[t].v = _mm512_set1_epi32(-kBias * sum_of<8>(sums + t * step));
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512i both = _mm512_loadu_si512(data + v * 64);
    const __m512i low = _mm512_and_si512(both, mask),
                  high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* x = codes + t * stride + v * 8;
      dots[t].v = dot_product(dots[t].v, low, four_codes(x));
      dots[t].v = dot_product(dots[t].v, high, four_codes(x + 4));
    }
  }
}

#include "compress/runtime/kernels/simd_body.h"

}  // namespace

#if defined(SLMC_EMULATE_VNNI)
const Set& emulated_vnni_set() {
  static constexpr Set set = {
    "emulated_vnni",
    tile,
    matmul,
    rms_norm,
#else
const Set& avx512vnni_set() {
  static constexpr Set set = {"avx512vnni",  tile,          matmul,  rms_norm,
#endif
    silu_multiply,
    softmax_block,
    scale,
    quantize_row,
    f16_to_f32,
    exp_many,
    read_all
  };
  return set;
}

}  // namespace slmc::kernels
