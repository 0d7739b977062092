// AVX2 and F16C. Compiled with flags of its own; includes nothing that could leave inline functions
// behind.
#if defined(__x86_64__)
#include <immintrin.h>

#include "quantize/kernels/kernels.h"

namespace slmc {
namespace {

// Below this a scale's inverse may overflow or lose bits as a subnormal; such blocks take the
// reference path.
constexpr float kSmallestFastMaximum = 0x1.0p-100f;

inline float horizontal_max(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

inline float horizontal_min(__m256 v) {
  __m128 m = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_min_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

/// Lanes 0+4, 1+5, ... then pairs, as the scalar file's sum_lanes.
inline float horizontal_sum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline void store_scale(float scale, std::byte* out) {
  const int bits = _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(scale), _MM_FROUND_TO_NEAREST_INT));
  out[0] = static_cast<std::byte>(bits & 0xff);
  out[1] = static_cast<std::byte>((bits >> 8) & 0xff);
}

inline __m256 load_scale(const std::byte* in) {
  const int bits = static_cast<int>(in[0]) | static_cast<int>(in[1]) << 8;
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

void widen_bf16(const std::byte* in, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i));
    _mm256_storeu_ps(out + i,
                     _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)));
  }
  for (; i < n; ++i) {
    const uint32_t bits =
        (static_cast<uint32_t>(in[2 * i]) | static_cast<uint32_t>(in[2 * i + 1]) << 8) << 16;
    __builtin_memcpy(out + i, &bits, 4);
  }
}

bool all_finite(const float* in, int64_t n) {
  const __m256i exponent = _mm256_set1_epi32(0x7f800000);
  __m256i bad = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i bits =
        _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i)), exponent);
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(bits, exponent));
  }
  for (; i < n; ++i) {
    if (!(in[i] - in[i] == 0.0f)) return false;
  }
  return _mm256_testz_si256(bad, bad) != 0;
}

/// Rounds half away from zero, as roundf: adding the float below 1/2 towards the sign and cutting
/// off is exact for |v| < 2^22.
inline __m256i round_half_away(__m256 v) {
  const __m256 sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f));
  return _mm256_cvttps_epi32(_mm256_add_ps(v, _mm256_or_ps(sign, _mm256_set1_ps(0x1.fffffep-2f))));
}

/// 4 x 8 integers in [-128, 127] to 32 bytes in order.
inline __m256i pack_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void encode_q8_0(const float* in, int64_t n, std::byte* out, EncodeReference reference) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (int64_t i = 0; i < n; i += 32, out += 34) {
    const __m256 a = _mm256_loadu_ps(in + i), b = _mm256_loadu_ps(in + i + 8);
    const __m256 c = _mm256_loadu_ps(in + i + 16), d = _mm256_loadu_ps(in + i + 24);
    const __m256 largest =
        _mm256_max_ps(_mm256_max_ps(_mm256_and_ps(a, magnitude), _mm256_and_ps(b, magnitude)),
                      _mm256_max_ps(_mm256_and_ps(c, magnitude), _mm256_and_ps(d, magnitude)));
    const float maximum = horizontal_max(largest);
    if (!(maximum >= kSmallestFastMaximum)) {
      reference(in + i, 32, out);
      continue;
    }
    const float scale = maximum / 127.0f;
    const __m256 inverse = _mm256_set1_ps(1.0f / scale);
    store_scale(scale, out);
    const __m256i bytes = pack_bytes(
        round_half_away(_mm256_mul_ps(a, inverse)), round_half_away(_mm256_mul_ps(b, inverse)),
        round_half_away(_mm256_mul_ps(c, inverse)), round_half_away(_mm256_mul_ps(d, inverse)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2), bytes);
  }
}

/// min(15, trunc(x * inverse + 8.5)); multiplied, rounded, then added, as the reference does.
inline __m256i nibbles(__m256 x, __m256 inverse) {
  const __m256i q =
      _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(x, inverse), _mm256_set1_ps(8.5f)));
  return _mm256_min_epi32(q, _mm256_set1_epi32(15));
}

void encode_q4_0(const float* in, int64_t n, std::byte* out, EncodeReference reference) {
  for (int64_t i = 0; i < n; i += 32, out += 18) {
    const __m256 a = _mm256_loadu_ps(in + i), b = _mm256_loadu_ps(in + i + 8);
    const __m256 c = _mm256_loadu_ps(in + i + 16), d = _mm256_loadu_ps(in + i + 24);
    const float highest = horizontal_max(_mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d)));
    const float lowest = horizontal_min(_mm256_min_ps(_mm256_min_ps(a, b), _mm256_min_ps(c, d)));
    // Equal extremes of both signs: the first in the block decides, which only the reference looks
    // for.
    const float maximum = highest > -lowest ? highest : lowest;
    const float size = highest > -lowest ? highest : -lowest;
    if (!(size >= kSmallestFastMaximum) || highest == -lowest) {
      reference(in + i, 32, out);
      continue;
    }
    const float scale = maximum / -8.0f;
    const __m256 inverse = _mm256_set1_ps(1.0f / scale);
    store_scale(scale, out);
    const __m256i low = _mm256_packs_epi32(nibbles(a, inverse), nibbles(b, inverse));
    const __m256i high = _mm256_packs_epi32(nibbles(c, inverse), nibbles(d, inverse));
    // 16-bit lanes hold low | high << 4; packing halves each 128-bit lane, so the quarters are put
    // in order after it.
    const __m256i pairs = _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
    const __m256i packed = _mm256_packus_epi16(pairs, pairs);
    const __m256i ordered =
        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2), _mm256_castsi256_si128(ordered));
  }
}

/// Lanes of one span; `close` adds them to the sum.
struct Span {
  __m256 error = _mm256_setzero_ps();
  __m256 weight = _mm256_setzero_ps();
  __m256 largest = _mm256_setzero_ps();

  inline void add(__m256 exact, __m256 decoded) {
    const __m256 difference = _mm256_sub_ps(exact, decoded);
    error = _mm256_add_ps(error, _mm256_mul_ps(difference, difference));
    weight = _mm256_add_ps(weight, _mm256_mul_ps(exact, exact));
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), difference));
  }
  inline void close(Distortion* sum) {
    sum->squared_error += static_cast<double>(horizontal_sum(error));
    sum->squared_weight += static_cast<double>(horizontal_sum(weight));
    const float maximum = horizontal_max(largest);
    if (maximum > sum->max_error) sum->max_error = maximum;
    error = weight = largest = _mm256_setzero_ps();
  }
};

inline int64_t span_end(int64_t begin, int64_t n) {
  return n - begin < kDistortionSpan ? n : begin + kDistortionSpan;
}

void distortion_q8_0(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum) {
  Span span;
  for (int64_t begin = 0; begin < n; begin = span_end(begin, n)) {
    for (int64_t i = begin; i < span_end(begin, n); i += 32, blocks += 34) {
      const __m256 scale = load_scale(blocks);
      for (int j = 0; j < 32; j += 8) {
        const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(blocks + 2 + j));
        const __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
        span.add(_mm256_loadu_ps(exact + i + j), _mm256_mul_ps(scale, q));
      }
    }
    span.close(sum);
  }
}

void distortion_q4_0(const float* exact, const std::byte* blocks, int64_t n, Distortion* sum) {
  const __m128i mask = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
  Span span;
  for (int64_t begin = 0; begin < n; begin = span_end(begin, n)) {
    for (int64_t i = begin; i < span_end(begin, n); i += 32, blocks += 18) {
      const __m256 scale = load_scale(blocks);
      const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 2));
      const __m128i halves[2] = {
          _mm_sub_epi8(_mm_and_si128(pairs, mask), eight),
          _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(pairs, 4), mask), eight)};
      for (int h = 0; h < 2; ++h) {
        const __m256 first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(halves[h]));
        const __m256 second =
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(halves[h], 8)));
        span.add(_mm256_loadu_ps(exact + i + 16 * h), _mm256_mul_ps(scale, first));
        span.add(_mm256_loadu_ps(exact + i + 16 * h + 8), _mm256_mul_ps(scale, second));
      }
    }
    span.close(sum);
  }
}

void distortion_f32(const float* exact, const float* decoded, int64_t n, Distortion* sum) {
  Span span;
  for (int64_t begin = 0; begin < n; begin = span_end(begin, n)) {
    int64_t i = begin;
    for (; i + 8 <= span_end(begin, n); i += 8)
      span.add(_mm256_loadu_ps(exact + i), _mm256_loadu_ps(decoded + i));
    if (i < span_end(begin,
                     n)) {  // The last of a row that is no multiple of 8: absent lanes add nothing.
      alignas(32) float a[8] = {}, b[8] = {};
      for (int64_t j = i; j < n; ++j) a[j - i] = exact[j], b[j - i] = decoded[j];
      span.add(_mm256_load_ps(a), _mm256_load_ps(b));
    }
    span.close(sum);
  }
}

}  // namespace

const EncodeKernels kAvx2EncodeKernels = {widen_bf16,     all_finite,        encode_q8_0,
                                          encode_q4_0,    distortion_q8_0,   distortion_q4_0,
                                          distortion_f32, search_blocks_avx2};
const EncodeKernels kAvx512EncodeKernels = {widen_bf16,     all_finite,          encode_q8_0,
                                            encode_q4_0,    distortion_q8_0,     distortion_q4_0,
                                            distortion_f32, search_blocks_avx512};

}  // namespace slmc
#endif
