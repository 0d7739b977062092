// The vector form of the canonical arithmetic, written once over `V`, 16 float lanes, and compiled
// by each instruction set's file inside its own unnamed namespace, so that all of it has internal
// linkage. Before it the includer defines
//   V and load, store, broadcast, add, sub, mul, div, fma, larger(a, b) = a > b ? a : b, smaller(a,
//   b) = a < b ? a : b, load_f16, load_bf16; power_of_two(x), 2^n for the n in the low bits of x;
//   largest_magnitude(V, V), compared as integers; load_i8 and load_u8, 16 bytes as floats;
//   unpack_8 and unpack_4, four k at once; I, 16 int32 lanes, to_float(I), and dot_8 over 4 k a
//   vector and dot_4 over 32 k for several tokens; SLMC_TILE_PANELS
//   and SLMC_TILE_TOKENS, the register tile, and SLMC_INTEGER_TOKENS, the tokens of an integer
//   tile.
// docs/arithmetic.md has the orders of operations; nothing here may change them.

#define SLMC_INLINE static inline __attribute__((always_inline))

constexpr float kRounder = 12582912.0f;

SLMC_INLINE uint32_t to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

SLMC_INLINE float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

SLMC_INLINE V exp_of(V x) {
  x = larger(broadcast(-87.0f), x);
  x = smaller(broadcast(88.0f), x);
  const V shifted = fma(x, broadcast(0x1.715476p+0f), broadcast(kRounder));
  const V n = sub(shifted, broadcast(kRounder));
  const V r = fma(n, broadcast(0x1.05c61p-29f), fma(n, broadcast(-0x1.62e43p-1f), x));
  V p = broadcast(0x1.a01a02p-13f);
  p = fma(p, r, broadcast(0x1.6c16c2p-10f));
  p = fma(p, r, broadcast(0x1.111112p-7f));
  p = fma(p, r, broadcast(0x1.555556p-5f));
  p = fma(p, r, broadcast(0x1.555556p-3f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
  return mul(p, power_of_two(shifted));
}

/// Sum of the 16 lanes, halves added to halves.
SLMC_INLINE float tree(V v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = lane[i] + lane[i + width];
  }
  return lane[0];
}

SLMC_INLINE V load_part(const float* from, int64_t count) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lane[i] = from[i];
  return load(lane);
}

SLMC_INLINE void store_part(float* to, V v, int64_t count) {
  float lane[kLanes];
  store(lane, v);
  for (int64_t i = 0; i < count; ++i) to[i] = lane[i];
}

#include "compress/runtime/kernels/simd_matmul_body.h"

static void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  const int64_t whole = n / kLanes * kLanes, rest = n - whole;
  V squares = broadcast(0.0f);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const V value = load(x + i);
    squares = fma(value, value, squares);
  }
  if (rest > 0) {  // Lanes without a value add 0 * 0.
    const V value = load_part(x + whole, rest);
    squares = fma(value, value, squares);
  }
  const float mean = tree(squares) / static_cast<float>(n);
  const V factor = broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < whole; i += kLanes)
    store(out + i, mul(mul(load(x + i), factor), load(weight + i)));
  if (rest > 0)
    store_part(out + whole,
               mul(mul(load_part(x + whole, rest), factor), load_part(weight + whole, rest)), rest);
}

SLMC_INLINE V silu_times(V gate, V up) {
  const V negative = mul(gate, broadcast(-1.0f));
  return mul(div(gate, add(broadcast(1.0f), exp_of(negative))), up);
}

static void silu_multiply(float* gate, const float* up, int64_t n) {
  const int64_t whole = n / kLanes * kLanes, rest = n - whole;
  for (int64_t i = 0; i < whole; i += kLanes)
    store(gate + i, silu_times(load(gate + i), load(up + i)));
  if (rest > 0)
    store_part(gate + whole, silu_times(load_part(gate + whole, rest), load_part(up + whole, rest)),
               rest);
}

static float softmax_block(float* scores, int64_t valid, float scale, float* maximum, float* sum) {
  for (int64_t j = valid; j < kAttentionBlock; ++j) scores[j] = -__builtin_inff();
  V value[4];
  V top = broadcast(*maximum);
  for (int i = 0; i < 4; ++i) {
    value[i] = mul(load(scores + i * kLanes), broadcast(scale));
    top = larger(value[i], top);
  }
  float lane[kLanes];
  store(lane, top);
  float largest = lane[0];
  for (int i = 1; i < kLanes; ++i) largest = lane[i] > largest ? lane[i] : largest;
  for (int i = 0; i < 4; ++i) store(scores + i * kLanes, exp_of(sub(value[i], broadcast(largest))));
  for (int64_t j = valid; j < kAttentionBlock; ++j) scores[j] = 0.0f;
  V total = broadcast(0.0f);
  for (int i = 0; i < 4; ++i) total = add(total, load(scores + i * kLanes));
  float factors[kLanes];
  store(factors, exp_of(broadcast(*maximum - largest)));
  *sum = __builtin_fmaf(*sum, factors[0], tree(total));
  *maximum = largest;
  return factors[0];
}

static void scale(float* x, int64_t n, float factor) {
  const V by = broadcast(factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, mul(load(x + i), by));
  for (; i < n; ++i) x[i] = x[i] * factor;
}

static void quantize_row(const float* x, int64_t n, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t b = 0; b < n / kBlock; ++b, x += kBlock, codes += kBlock) {
    const V first = load(x), second = load(x + kLanes);
    const uint32_t top = largest_magnitude(first, second);
    const bool zero = top < 0x04000000u;
    const float inverse = zero ? 0.0f : 127.0f / from_bits(top);
    scales[b] = zero ? 0.0f : from_bits(top) / 127.0f;
    float rounded[kBlock];
    store(rounded, add(mul(first, broadcast(inverse)), broadcast(kRounder)));
    store(rounded + kLanes, add(mul(second, broadcast(inverse)), broadcast(kRounder)));
    int32_t sum[2] = {};
    for (int64_t j = 0; j < kBlock; ++j) {
      codes[j] = static_cast<int8_t>(to_bits(rounded[j]) & 0xffu);
      sum[j / 16] += codes[j];
    }
    sums[2 * b] = sum[0];
    sums[2 * b + 1] = sum[1];
  }
}

static void f16_to_f32(const uint16_t* in, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(out + i, load_f16(reinterpret_cast<const std::byte*>(in + i)));
  if (i == n) return;
  uint16_t rest[kLanes] = {};
  for (int64_t j = i; j < n; ++j) rest[j - i] = in[j];
  store_part(out + i, load_f16(reinterpret_cast<const std::byte*>(rest)), n - i);
}

static void exp_many(const float* x, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, exp_of(load(x + i)));
  if (i < n) store_part(out + i, exp_of(load_part(x + i, n - i)), n - i);
}

static uint64_t read_all(const std::byte* from, int64_t bytes) {
  uint64_t lane[8] = {};  // Vectorised by the compiler to the widest registers of the file's flags.
  for (int64_t i = 0; i < bytes; i += 64) {
    uint64_t word[8];
    __builtin_memcpy(word, from + i, 64);
    for (int j = 0; j < 8; ++j) lane[j] ^= word[j];
  }
  uint64_t sum = 0;
  for (int j = 0; j < 8; ++j) sum ^= lane[j];
  return sum;
}
