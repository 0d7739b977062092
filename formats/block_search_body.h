// The scale search of block_search.h, written once over vectors of SLMC_SEARCH_LANES floats and
// compiled by each instruction set's file inside its own unnamed namespace. A lane holds one block.
//
// Every candidate scale is tried by rounding the block with it. Where steps are coarse, the scale
// that fits the codes best (least squares) is taken rather than the candidate itself; where they
// are fine, a candidate counts as it would be stored. Super-blocks first get a real scale (and
// minimum) for each sub-block; then the block's two factors; then every sub-block tries the
// integers around its own with those factors, and the factors are fitted once more.

constexpr int kLanes = SLMC_SEARCH_LANES;
typedef float V __attribute__((vector_size(4 * kLanes)));
typedef int32_t I __attribute__((vector_size(4 * kLanes)));

#define SLMC_SEARCH static inline __attribute__((always_inline))

constexpr float kRounder =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even.
constexpr int64_t kMaxBlock = 256, kMaxSubs = 16;
// Blocks whose largest magnitude is below this are zeros in any type: f16 ends at 6e-8.
constexpr float kNothing = 1e-12f;

SLMC_SEARCH V all(float x) { return x - V{}; }  // Subtracting +0 changes nothing.
SLMC_SEARCH V larger(V a, V b) { return a > b ? a : b; }
SLMC_SEARCH V smaller(V a, V b) { return a < b ? a : b; }
SLMC_SEARCH V magnitude(V a) { return (V)((I)a & 0x7fffffff); }
SLMC_SEARCH V rounded(V a) { return (a + kRounder) - kRounder; }
SLMC_SEARCH V clamped(V a, float low, float high) {
  return larger(smaller(a, all(high)), all(low));
}
/// a / b, 0 where b is not above zero.
SLMC_SEARCH V ratio(V a, V b) { return b > 0.0f ? a / (b > 0.0f ? b : all(1.0f)) : all(0.0f); }
/// 1 / b, 0 where b is (nearly) zero.
SLMC_SEARCH V inverse(V b) {
  const I usable = magnitude(b) > 1e-30f;
  return usable ? 1.0f / (usable ? b : all(1.0f)) : all(0.0f);
}

/// The value that storing as f16 gives, for magnitudes below 65520.
SLMC_SEARCH V as_f16(V a) {
  const V size = magnitude(a);
  const I bits = (I)size;
  const V normal = (V)((bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fff);
  const V tiny = (size + 0.5f) - 0.5f;  // 0.5 has an ulp of 2^-24, the step of f16's subnormals.
  const V result = size < 0x1p-14f ? tiny : normal;
  return (V)((I)result | ((I)a & ~0x7fffffff));
}

/// Codes that are all integers from low to high.
struct EvenSteps {
  float low, high;
  __attribute__((always_inline)) V nearest(V value) const {
    return rounded(clamped(value, low, high));
  }
};

/// Codes of a table of 16: passing the middle between two adds their distance.
struct TableSteps {
  float lowest, middle[15], distance[15];
  __attribute__((always_inline)) V nearest(V value) const {
    V code = all(lowest);
#pragma GCC unroll 15
    for (int i = 0; i < 15; ++i) code += value > middle[i] ? all(distance[i]) : all(0.0f);
    return code;
  }
};

static TableSteps table_steps(const int8_t* table) {
  TableSteps steps{};
  steps.lowest = table[0];
  for (int i = 0; i < 15; ++i) {
    steps.middle[i] = 0.5f * static_cast<float>(table[i] + table[i + 1]);
    steps.distance[i] = static_cast<float>(table[i + 1] - table[i]);
  }
  return steps;
}

/// kLanes blocks, transposed: x[i] is element i of each.
struct Blocks {
  V x[kMaxBlock], w[kMaxBlock];
};

/// Sums over a sub-block for one rounding: q its codes.
struct Sums {
  V q, qq, xq;
};

/// Rounds n elements with kCount candidates at once: code = nearest(x * inverse + offset).
template <int kCount, bool kWeighted, bool kMinimum, typename Steps>
static void sum_codes(const Steps& steps, const V* x, const V* w, int64_t n, const V* inverses,
                      const V* offsets, Sums* sums) {
  V q[kCount] = {}, qq[kCount] = {}, xq[kCount] = {};
  for (int64_t i = 0; i < n; ++i) {
    const V value = x[i];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
      V scaled = value * inverses[c];
      if constexpr (kMinimum) scaled += offsets[c];
      const V code = steps.nearest(scaled);
      const V part = kWeighted ? w[i] * code : code;
      if constexpr (kMinimum) q[c] += part;
      qq[c] += part * code;
      xq[c] += part * value;
    }
  }
  for (int c = 0; c < kCount; ++c) sums[c] = {q[c], qq[c], xq[c]};
}

/// The squared error of n elements for kCount scales at once.
template <int kCount, bool kWeighted, typename Steps>
static void measure(const Steps& steps, const V* x, const V* w, int64_t n, const V* scales,
                    V* errors) {
  V inverses[kCount], error[kCount] = {};
  for (int c = 0; c < kCount; ++c) inverses[c] = inverse(scales[c]);
  for (int64_t i = 0; i < n; ++i) {
    const V value = x[i];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
      const V off = value - steps.nearest(value * inverses[c]) * scales[c];
      error[c] += kWeighted ? w[i] * (off * off) : off * off;
    }
  }
  for (int c = 0; c < kCount; ++c) errors[c] = error[c];
}

/// The element of largest magnitude, the first of equals.
SLMC_SEARCH V extreme_of(const V* x, int64_t n) {
  V extreme = x[0];
  for (int64_t i = 1; i < n; ++i) extreme = magnitude(x[i]) > magnitude(extreme) ? x[i] : extreme;
  return extreme;
}

/// Candidates for the scale of coarse steps: the code that the element of largest magnitude gets,
/// in parts of the lowest code; the negative ones map it towards the highest code. In the order in
/// which they help most on normal values. The second half is for weighted errors, where the largest
/// element may matter little.
constexpr float kReach[16] = {1.02f, 1.10f, -0.90f, 0.98f,  1.20f,  1.06f, -0.84f, -0.76f,
                              1.32f, 1.45f, -1.06f, -1.20f, -1.35f, 0.92f, 1.15f,  -0.97f};

/// The real scale for n elements that leaves the least error after rounding with one of the
/// candidates: the least-squares scale of its codes.
template <bool kWeighted, typename Steps>
static V fit_scale(const Steps& steps, float lowest, const V* x, const V* w, int64_t n) {
  const V extreme = extreme_of(x, n);
  const V unit = inverse(magnitude(extreme) > kNothing ? extreme : all(0.0f)) * lowest;
  V best = all(0.0f), best_scale = all(0.0f);
  const auto take = [&](const Sums& sums) {
    const V scale = ratio(sums.xq, sums.qq), gain = scale * sums.xq;
    const I better = gain > best;
    best = better ? gain : best;
    best_scale = better ? scale : best_scale;
  };
  for (int first = 0; first < (kWeighted ? 16 : 8); first += 4) {
    V inverses[4];
    Sums sums[4];
    for (int c = 0; c < 4; ++c) inverses[c] = unit * kReach[first + c];
    sum_codes<4, kWeighted, false>(steps, x, w, n, inverses, nullptr, sums);
    for (int c = 0; c < 4; ++c) take(sums[c]);
  }
  const V again = inverse(best_scale);
  Sums sums;
  sum_codes<1, kWeighted, false>(steps, x, w, n, &again, nullptr, &sums);
  take(sums);
  return best_scale;
}

/// Tries four scales as they would be stored.
template <bool kWeighted, typename Steps>
static void try_scales(const Steps& steps, const V* x, const V* w, int64_t n, const V* scales,
                       V& best, V& best_scale) {
  V errors[4];
  measure<4, kWeighted>(steps, x, w, n, scales, errors);
  for (int c = 0; c < 4; ++c) {
    const I better = errors[c] < best;
    best = better ? errors[c] : best;
    best_scale = better ? scales[c] : best_scale;
  }
}

/// Fine steps from -highest to highest (q8_0): which of several nearly equal scales suits a block
/// is chance, so more of them leave less error. Each counts as it would be stored. Signs do not
/// matter and errors are summed in steps, which leaves the loop little to do.
template <bool kWeighted>
static V try_fine_scales(float highest, const V* x, const V* w, int64_t n) {
  constexpr float kBelow[4] = {0.0f, 0.9f, 1.7f, 2.6f};
  V largest = magnitude(x[0]);
  for (int64_t i = 1; i < n; ++i) largest = larger(largest, magnitude(x[i]));
  V scales[4], inverses[4], errors[4] = {};
  for (int c = 0; c < 4; ++c) {
    scales[c] = as_f16(largest * (1.0f / (highest - kBelow[c])));
    inverses[c] = inverse(scales[c]);
  }
  for (int64_t i = 0; i < n; ++i) {
    const V size = magnitude(x[i]);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const V steps = size * inverses[c];
      const V off = steps - rounded(smaller(steps, all(highest)));
      errors[c] += kWeighted ? w[i] * (off * off) : off * off;
    }
  }
  V best = all(__builtin_inff()), best_scale = scales[0];
  for (int c = 0; c < 4; ++c) {
    const V error = errors[c] * (scales[c] * scales[c]);
    const I better = scales[c] > 0.0f ? error < best : I{};
    best = better ? error : best;
    best_scale = better ? scales[c] : best_scale;
  }
  return best_scale;
}

/// What the search decides for kLanes blocks: values as stored.
struct Chosen {
  V d, dmin, scales[kMaxSubs], minimums[kMaxSubs];
};

/// Scales of super-blocks without minimums.
template <bool kWeighted, typename Steps>
static void choose_super_scales(const BlockLayout& layout, const Steps& steps, const Blocks& blocks,
                                Chosen& chosen) {
  const int64_t subs = layout.subs, n = layout.sub;
  const bool fine = layout.high - layout.low > 32 && layout.table == nullptr;
  const auto lowest = static_cast<float>(layout.table ? layout.table[0] : layout.low);
  const auto low = static_cast<float>(layout.scale_low),
             high = static_cast<float>(layout.scale_high);
  V real[kMaxSubs] = {};
  for (int64_t j = 0; j < subs; ++j) {
    const V* x = blocks.x + j * n;
    real[j] = fine && !kWeighted ? extreme_of(x, n) * (1.0f / lowest)
                                 : fit_scale<kWeighted>(steps, lowest, x, blocks.w + j * n, n);
  }
  chosen.d = as_f16(extreme_of(real, subs) * (1.0f / low));
  const V unit = inverse(chosen.d);
  V numerator = all(0.0f), denominator = all(0.0f);
  for (int64_t j = 0; j < subs; ++j) {
    const V *x = blocks.x + j * n, *w = blocks.w + j * n;
    const V start = rounded(clamped(real[j] * unit, low, high));
    const V outwards = start < 0.0f ? all(-1.0f) : all(1.0f);
    V scales[4], best = all(__builtin_inff()), best_scale = start * chosen.d;
    for (int first = fine ? -4 : -2; first < (fine ? 4 : 2); first += 4) {
      for (int c = 0; c < 4; ++c)
        scales[c] = clamped(start + outwards * static_cast<float>(first + c), low, high) * chosen.d;
      try_scales<kWeighted>(steps, x, w, n, scales, best, best_scale);
    }
    chosen.scales[j] = rounded(best_scale * unit);
    const V again = inverse(best_scale);
    Sums sums;
    sum_codes<1, kWeighted, false>(steps, x, w, n, &again, nullptr, &sums);
    numerator += chosen.scales[j] * sums.xq;
    denominator += chosen.scales[j] * chosen.scales[j] * sums.qq;
  }
  const V fitted = as_f16(ratio(numerator, denominator));
  chosen.d = denominator > 0.0f ? fitted : chosen.d;
}

#include "formats/block_search_lines_body.h"

template <bool kWeighted, typename Steps>
static void choose_scales_of(const BlockLayout& layout, const Steps& steps, const Blocks& blocks,
                             Chosen& chosen) {
  if (layout.block > layout.sub)
    return choose_super_scales<kWeighted>(layout, steps, blocks, chosen);
  const auto lowest = static_cast<float>(layout.table ? layout.table[0] : layout.low);
  chosen.scales[0] = all(1.0f);
  chosen.d = layout.high > 100 && layout.table == nullptr
                 ? try_fine_scales<kWeighted>(static_cast<float>(layout.high), blocks.x, blocks.w,
                                              layout.block)
                 : as_f16(fit_scale<kWeighted>(steps, lowest, blocks.x, blocks.w, layout.block));
}

template <bool kWeighted>
static void choose(const BlockLayout& layout, const Blocks& blocks, Chosen& chosen) {
  if (layout.minimum) {
    choose_lines<kWeighted>(layout, blocks, chosen);
  } else if (layout.table != nullptr) {
    choose_scales_of<kWeighted>(layout, table_steps(layout.table), blocks, chosen);
  } else {
    const EvenSteps steps{static_cast<float>(layout.low), static_cast<float>(layout.high)};
    choose_scales_of<kWeighted>(layout, steps, blocks, chosen);
  }
}

SLMC_SEARCH V load(const float* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

/// [lanes][n] to n vectors. A transposition is as many perfect shuffles as the lanes have bits.
static void transpose(const float* const* rows, int64_t n, V* out) {
#if SLMC_SEARCH_LANES == 4
  constexpr I kLow = {0, 4, 1, 5}, kHigh = {2, 6, 3, 7};
#elif SLMC_SEARCH_LANES == 8
  constexpr I kLow = {0, 8, 1, 9, 2, 10, 3, 11}, kHigh = {4, 12, 5, 13, 6, 14, 7, 15};
#else
  constexpr I kLow = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23},
              kHigh = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
#endif
  for (int64_t i = 0; i < n; i += kLanes) {
    V from[kLanes], to[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) from[l] = load(rows[l] + i);
#pragma GCC unroll 4
    for (int step = 1; step < kLanes; step *= 2) {
#pragma GCC unroll 8
      for (int l = 0; l < kLanes / 2; ++l) {
        to[2 * l] = __builtin_shuffle(from[l], from[l + kLanes / 2], kLow);
        to[2 * l + 1] = __builtin_shuffle(from[l], from[l + kLanes / 2], kHigh);
      }
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) from[l] = to[l];
    }
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) out[i + l] = from[l];
  }
}

/// The f16 bits of a value that f16 holds, or infinity.
static uint16_t half_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (size >= 0x38800000u) return static_cast<uint16_t>(sign | ((size - 0x38000000u) >> 13));
  float magnitude_of;
  __builtin_memcpy(&magnitude_of, &size, 4);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(magnitude_of * 0x1p24f));
}

/// What is chosen, by lane: `units` are the inverses of the f32 scales.
struct Lanes {
  alignas(64) float d[kLanes], dmin[kLanes];
  alignas(64) float scales[kMaxSubs][kLanes], minimums[kMaxSubs][kLanes];
  alignas(64) float units[kMaxSubs][kLanes], offsets[kMaxSubs][kLanes];
};

SLMC_SEARCH void put(float* to, V value) { __builtin_memcpy(to, &value, sizeof value); }

static void spread(const BlockLayout& layout, const Chosen& chosen, Lanes& lanes) {
  put(lanes.d, chosen.d);
  if (layout.minimum) put(lanes.dmin, chosen.dmin);
  for (int64_t j = 0; j < layout.subs; ++j) {
    put(lanes.scales[j], chosen.scales[j]);
    put(lanes.units[j], inverse(chosen.d * chosen.scales[j]));
    if (!layout.minimum) continue;
    put(lanes.minimums[j], chosen.minimums[j]);
    put(lanes.offsets[j], chosen.dmin * chosen.minimums[j]);
  }
}

/// Nearest codes of one block, in order; as round_codes.
template <typename Steps>
static void store_codes(const BlockLayout& layout, const Steps& steps, const float* x,
                        const Lanes& lanes, int lane, int8_t* __restrict codes) {
  alignas(64) uint32_t bits[kMaxBlock];
  for (int64_t j = 0; j < layout.subs; ++j) {
    const V unit = all(lanes.units[j][lane]);
    const V offset = all(layout.minimum ? lanes.offsets[j][lane] : 0.0f);
    for (int64_t i = j * layout.sub; i < (j + 1) * layout.sub; i += kLanes) {
      V value = load(x + i);
      if (layout.minimum) value += offset;
      const V code = steps.nearest(value * unit) + kRounder;  // The code is in the low byte.
      __builtin_memcpy(bits + i, &code, sizeof code);
    }
  }
  for (int64_t i = 0; i < layout.block; i += 32) {
#pragma GCC ivdep
    for (int64_t k = 0; k < 32; ++k) codes[i + k] = static_cast<int8_t>(bits[i + k] & 0xffu);
  }
}

static void store(const BlockLayout& layout, const float* x, const Lanes& lanes, int lane,
                  BlockParts& parts) {
  parts.d = half_bits(lanes.d[lane]);
  parts.dmin = layout.minimum ? half_bits(lanes.dmin[lane]) : uint16_t{0};
  for (int64_t j = 0; j < layout.subs; ++j) {
    parts.scales[j] = static_cast<int8_t>(lanes.scales[j][lane]);
    if (layout.minimum) parts.minimums[j] = static_cast<uint8_t>(lanes.minimums[j][lane]);
  }
  if (layout.table != nullptr) {
    store_codes(layout, table_steps(layout.table), x, lanes, lane, parts.codes);
  } else {
    const EvenSteps steps{static_cast<float>(layout.low), static_cast<float>(layout.high)};
    store_codes(layout, steps, x, lanes, lane, parts.codes);
  }
}

static void search(const BlockSearch& job) {
  const BlockLayout& layout = *job.layout;
  Blocks blocks;
  Chosen chosen;
  Lanes lanes;
  for (int64_t first = 0; first < job.blocks; first += kLanes) {
    const float *rows[kLanes], *weights[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {  // Lanes without a block repeat the last one.
      const int64_t block = first + l < job.blocks ? first + l : job.blocks - 1;
      rows[l] = job.x + block * layout.block;
      if (job.weights) weights[l] = job.weights + (job.phase + block * layout.block) % job.period;
    }
    transpose(rows, layout.block, blocks.x);
    if (job.weights) {
      transpose(weights, layout.block, blocks.w);
      choose<true>(layout, blocks, chosen);
    } else {
      choose<false>(layout, blocks, chosen);
    }
    spread(layout, chosen, lanes);
    for (int l = 0; l < kLanes && first + l < job.blocks; ++l)
      store(layout, rows[l], lanes, l, job.parts[first + l]);
  }
}

#undef SLMC_SEARCH
#undef SLMC_SEARCH_LANES
