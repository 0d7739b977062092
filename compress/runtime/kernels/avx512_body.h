// AVX-512 (F, BW, DQ, VL) vectors for simd_body.h; included inside the including file's unnamed
// namespace. All but the integer dot products, which differ with and without VNNI.

#define SLMC_TILE_PANELS 2
#define SLMC_TILE_TOKENS 12
#define SLMC_INTEGER_TOKENS 8
#define SLMC_VECTOR static inline __attribute__((always_inline))

struct V {
  __m512 v;
};
struct I {
  __m512i v;
};

SLMC_VECTOR V load(const float* from) { return {_mm512_loadu_ps(from)}; }
SLMC_VECTOR void store(float* to, V a) { _mm512_storeu_ps(to, a.v); }
SLMC_VECTOR V broadcast(float a) { return {_mm512_set1_ps(a)}; }
SLMC_VECTOR V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
SLMC_VECTOR V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
SLMC_VECTOR V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
SLMC_VECTOR V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
SLMC_VECTOR V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SLMC_VECTOR V larger(V a, V b) {
  return {_mm512_max_ps(a.v, b.v)};
}  // a > b ? a : b, by the instruction's definition.
SLMC_VECTOR V smaller(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
SLMC_VECTOR V load_f16(const std::byte* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
SLMC_VECTOR V load_bf16(const std::byte* from) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
SLMC_VECTOR V power_of_two(V shifted) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(
      _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23), _mm512_set1_epi32(0x3f800000)))};
}
SLMC_VECTOR uint32_t largest_magnitude(V a, V b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i top = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a.v), mask),
                                       _mm512_and_si512(_mm512_castps_si512(b.v), mask));
  return _mm512_reduce_max_epu32(top);
}
SLMC_VECTOR V to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }

SLMC_VECTOR V load_i8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
SLMC_VECTOR V load_u8(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
}

/// Four codes of each row, as floats, from 64 bytes [16][4].
SLMC_VECTOR void unpack_8(const std::byte* from, V* four) {
  const __m512i all = _mm512_loadu_si512(from);
  four[0].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(all, 24), 24));
  four[1].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(all, 16), 24));
  four[2].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(all, 8), 24));
  four[3].v = _mm512_cvtepi32_ps(_mm512_srai_epi32(all, 24));
}

/// The low (or high) nibbles of 64 bytes [16][4], less kBias.
template <int kBias>
SLMC_VECTOR void unpack_4(const std::byte* from, bool high, V* four) {
  __m512i all = _mm512_loadu_si512(from);
  if (high) all = _mm512_srli_epi32(all, 4);
  const __m512i mask = _mm512_set1_epi32(15), bias = _mm512_set1_epi32(kBias);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i code = _mm512_and_si512(_mm512_srli_epi32(all, 8 * j), mask);
    four[j].v = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, bias));
  }
}

/// Four codes of a token in every lane.
SLMC_VECTOR __m512i four_codes(const int8_t* from) {
  int32_t bits;
  __builtin_memcpy(&bits, from, 4);
  return _mm512_set1_epi32(bits);
}

/// Sum of the codes of 4 * kVectors k, from sums of 16 k.
template <int kVectors>
SLMC_VECTOR int32_t sum_of(const int32_t* sums) {
  return kVectors == 8 ? sums[0] + sums[1] : sums[0];
}
