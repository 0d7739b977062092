// AVX2 with FMA and F16C: 16 lanes are two registers.
#include <immintrin.h>

#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

#define SLMC_TILE_PANELS 1
#define SLMC_TILE_TOKENS 6
#define SLMC_INTEGER_TOKENS 2
#define SLMC_VECTOR static inline __attribute__((always_inline))

struct V {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

SLMC_VECTOR V load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
SLMC_VECTOR void store(float* to, V x) {
  _mm256_storeu_ps(to, x.a);
  _mm256_storeu_ps(to + 8, x.b);
}
SLMC_VECTOR V broadcast(float x) {
  const __m256 all = _mm256_set1_ps(x);
  return {all, all};
}
SLMC_VECTOR V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
SLMC_VECTOR V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
SLMC_VECTOR V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
SLMC_VECTOR V div(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
SLMC_VECTOR V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
SLMC_VECTOR V larger(V x, V y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}  // x > y ? x : y, by definition.
SLMC_VECTOR V smaller(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
SLMC_VECTOR V load_f16(const std::byte* from) {
  const auto* half = reinterpret_cast<const __m128i*>(from);
  return {_mm256_cvtph_ps(_mm_loadu_si128(half)), _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
}
SLMC_VECTOR V load_bf16(const std::byte* from) {
  const auto* half = reinterpret_cast<const __m128i*>(from);
  return {
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(half)), 16)),
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(half + 1)), 16))};
}
SLMC_VECTOR __m256 power_of_two_half(__m256 shifted) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23),
                                              _mm256_set1_epi32(0x3f800000)));
}
SLMC_VECTOR V power_of_two(V shifted) {
  return {power_of_two_half(shifted.a), power_of_two_half(shifted.b)};
}
SLMC_VECTOR __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
SLMC_VECTOR uint32_t largest_magnitude(V x, V y) {
  const __m256i top = _mm256_max_epu32(_mm256_max_epu32(magnitude(x.a), magnitude(x.b)),
                                       _mm256_max_epu32(magnitude(y.a), magnitude(y.b)));
  uint32_t lane[8], largest = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lane), top);
  for (int i = 0; i < 8; ++i) largest = lane[i] > largest ? lane[i] : largest;
  return largest;
}
SLMC_VECTOR V to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
SLMC_VECTOR I load_bytes(const std::byte* from) {
  const auto* at = reinterpret_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

SLMC_VECTOR V load_i8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return to_float({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}
SLMC_VECTOR V load_u8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return to_float({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
}

/// Four codes of each row, as floats, from 64 bytes [16][4].
SLMC_VECTOR void unpack_8(const std::byte* from, V* four) {
  const I all = load_bytes(from);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    four[j] = to_float({_mm256_srai_epi32(_mm256_slli_epi32(all.a, 24 - 8 * j), 24),
                        _mm256_srai_epi32(_mm256_slli_epi32(all.b, 24 - 8 * j), 24)});
  }
}

/// The low (or high) nibbles of 64 bytes [16][4], less kBias.
template <int kBias>
SLMC_VECTOR void unpack_4(const std::byte* from, bool high, V* four) {
  const I all = load_bytes(from);
  const int shift = high ? 4 : 0;
  const __m256i mask = _mm256_set1_epi32(15), bias = _mm256_set1_epi32(kBias);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    four[j] = to_float(
        {_mm256_sub_epi32(_mm256_and_si256(_mm256_srli_epi32(all.a, shift + 8 * j), mask), bias),
         _mm256_sub_epi32(_mm256_and_si256(_mm256_srli_epi32(all.b, shift + 8 * j), mask), bias)});
  }
}

SLMC_VECTOR __m256i four_codes(const int8_t* from) {
  int32_t bits;
  __builtin_memcpy(&bits, from, 4);
  return _mm256_set1_epi32(bits);
}

/// Sum of the codes of 4 * kVectors k, from sums of 16 k.
template <int kVectors>
SLMC_VECTOR int32_t sum_of(const int32_t* sums) {
  return kVectors == 8 ? sums[0] + sums[1] : sums[0];
}

/// |w| <= 128 times x with w's sign: two products stay within 2 * 128 * 127 = 32512, so the 16-bit
/// sums are exact, w = -128 included.
SLMC_VECTOR __m256i add_dot(__m256i sum, __m256i w, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <int kTokens, int kVectors>
SLMC_VECTOR void dot_8(const std::byte* data, const int8_t* codes, int64_t stride, const int32_t*,
                       int64_t, I* dots) {
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dots[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const I w = load_bytes(data + v * 64);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256i x = four_codes(codes + t * stride + v * 4);
      dots[t] = {add_dot(dots[t].a, w.a, x), add_dot(dots[t].b, w.b, x)};
    }
  }
}

/// Unsigned nibbles; eight sums of two products stay within 8 * 2 * 15 * 127 = 30480, so they add
/// up in 16 bits.
template <int kTokens, int kBias>
SLMC_VECTOR void dot_4(const std::byte* data, const int8_t* codes, int64_t stride,
                       const int32_t* sums, int64_t step, I* dots) {
  const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  I pairs[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) pairs[t] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const I both = load_bytes(data + v * 64);
    const __m256i low_a = _mm256_and_si256(both.a, mask),
                  high_a = _mm256_and_si256(_mm256_srli_epi16(both.a, 4), mask);
    const __m256i low_b = _mm256_and_si256(both.b, mask),
                  high_b = _mm256_and_si256(_mm256_srli_epi16(both.b, 4), mask);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256i first = four_codes(codes + t * stride + v * 8),
                    second = four_codes(codes + t * stride + v * 8 + 4);
      pairs[t].a = _mm256_add_epi16(pairs[t].a, _mm256_maddubs_epi16(low_a, first));
      pairs[t].b = _mm256_add_epi16(pairs[t].b, _mm256_maddubs_epi16(low_b, first));
      pairs[t].a = _mm256_add_epi16(pairs[t].a, _mm256_maddubs_epi16(high_a, second));
      pairs[t].b = _mm256_add_epi16(pairs[t].b, _mm256_maddubs_epi16(high_b, second));
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    const __m256i bias = _mm256_set1_epi32(kBias * sum_of<8>(sums + t * step));
    dots[t] = {_mm256_sub_epi32(_mm256_madd_epi16(pairs[t].a, ones), bias),
               _mm256_sub_epi32(_mm256_madd_epi16(pairs[t].b, ones), bias)};
  }
}

#include "compress/runtime/kernels/simd_body.h"

}  // namespace

const Set& avx2_set() {
  static constexpr Set set = {"avx2",        tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
