// Loops that the compiler turns into vector code: exp by polynomial, softmax. Private to the
// training code (not the runtime's arithmetic).
#pragma once

#include <cstdint>

// Several copies of a function, of which the loader picks this machine's; results may differ in the
// last bit between them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define SLMC_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define SLMC_CLONES
#endif
#define SLMC_INLINE static inline __attribute__((always_inline))

namespace slmc {

// A builtin in place of std::bit_cast, which is a function of the default target and would not be
// inlined into the copies.
/// exp(x) with relative error under 2e-7 for x in [-87, 88]; 0 below, saturated above. Polynomial
/// of degree 6 on [-ln2/2, ln2/2].
SLMC_INLINE float fast_exp(float x) {
  const float clamped = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = (__builtin_bit_cast(int32_t, shifted) - 0x4b400000 + 127) << 23;
  const float value = p * __builtin_bit_cast(float, exponent);
  return x < -87.0f ? 0.0f : value;
}

/// log(x) with absolute error under 2e-7 for normal x > 0: x = 2^n * m with m in [sqrt(1/2),
/// sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)) by its series.
SLMC_INLINE float fast_log(float x) {
  const int32_t bits = __builtin_bit_cast(int32_t, x);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;  // 0x3f3504f3: sqrt(1/2).
  const float m = __builtin_bit_cast(float, bits - (exponent << 23));
  const float s = (m - 1.0f) / (m + 1.0f);
  const float s2 = s * s;
  float series = 1.0f / 9.0f;
  series = series * s2 + 1.0f / 7.0f;
  series = series * s2 + 1.0f / 5.0f;
  series = series * s2 + 1.0f / 3.0f;
  return static_cast<float>(exponent) * 0.693147181f + (2.0f * s + 2.0f * s * s2 * series);
}

/// The largest of n > 0 values (loss_kernel.cc).
float row_max(const float* z, int64_t n);

}  // namespace slmc
