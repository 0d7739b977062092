// The products of simd_body.h, which includes this: register tiles, panels decoded for several
// tokens, single tokens, and int8 activations.

/// A register tile: kPanels panels by kTokens tokens. The last panel's outputs beyond `last` lanes
/// are neither read nor written.
template <int kPanels, int kTokens>
static __attribute__((noinline)) void register_tile(const float* w, int64_t w_step, int64_t w_panel,
                                                    int64_t k, const float* x, int64_t x_stride,
                                                    float* out, int64_t out_stride, bool accumulate,
                                                    int64_t last) {
  V acc[kTokens][kPanels];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      const float* from = out + t * out_stride + p * kLanes;
      if (!accumulate) {
        acc[t][p] = broadcast(0.0f);
      } else if (p + 1 == kPanels && last < kLanes) {
        acc[t][p] = load_part(from, last);
      } else {
        acc[t][p] = load(from);
      }
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    V weight[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) weight[p] = load(w + p * w_panel + i * w_step);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const V value = broadcast(x[t * x_stride + i]);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) acc[t][p] = fma(weight[p], value, acc[t][p]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      float* to = out + t * out_stride + p * kLanes;
      if (p + 1 == kPanels && last < kLanes) {
        store_part(to, acc[t][p], last);
      } else {
        store(to, acc[t][p]);
      }
    }
  }
}

using TileFunction = void (*)(const float*, int64_t, int64_t, int64_t, const float*, int64_t,
                              float*, int64_t, bool, int64_t);

template <int kPanels>
static TileFunction tile_for(int64_t tokens) {
  static constexpr TileFunction table[] = {
    &register_tile<kPanels, 1>,
    &register_tile<kPanels, 2>,
    &register_tile<kPanels, 3>,
    &register_tile<kPanels, 4>,
    &register_tile<kPanels, 5>,
    &register_tile<kPanels, 6>,
#if SLMC_TILE_TOKENS > 6
    &register_tile<kPanels, 7>,
    &register_tile<kPanels, 8>,
    &register_tile<kPanels, 9>,
    &register_tile<kPanels, 10>,
    &register_tile<kPanels, 11>,
    &register_tile<kPanels, 12>,
#endif
  };
  return table[tokens - 1];
}

/// Tokens of one tile when `left` remain: as even as the number of tiles allows.
SLMC_INLINE int64_t tokens_of_tile(int64_t left) {
  const int64_t tiles = (left + SLMC_TILE_TOKENS - 1) / SLMC_TILE_TOKENS;
  return (left + tiles - 1) / tiles;
}

/// kPanels panels times all tokens.
template <int kPanels>
static void sweep_tokens(const Tile& job, int64_t panel, int64_t last) {
  for (int64_t t = 0; t < job.tokens;) {
    const int64_t count = tokens_of_tile(job.tokens - t);
    tile_for<kPanels>(count)(job.w + panel * job.w_panel, job.w_step, job.w_panel, job.k,
                             job.x + t * job.x_stride, job.x_stride,
                             job.out + t * job.out_stride + panel * kLanes, job.out_stride,
                             job.accumulate, last);
    t += count;
  }
}

/// `last`: lanes of the last panel that exist.
static void sweep(const Tile& job, int64_t last) {
  int64_t p = 0;
#if SLMC_TILE_PANELS == 2
  for (; p + 2 <= job.panels; p += 2) sweep_tokens<2>(job, p, p + 2 == job.panels ? last : kLanes);
#endif
  for (; p < job.panels; ++p) sweep_tokens<1>(job, p, p + 1 == job.panels ? last : kLanes);
}

static void tile(const Tile& job) { sweep(job, kLanes); }

/// Vector of a panel's 16 rows at k.
template <Kind kKind>
SLMC_INLINE V weight_at(const std::byte* panel, int64_t k) {
  if constexpr (kKind == Kind::kF32)
    return load(reinterpret_cast<const float*>(panel) + k * kLanes);
  if constexpr (kKind == Kind::kF16) return load_f16(panel + k * kLanes * 2);
  if constexpr (kKind == Kind::kBF16) return load_bf16(panel + k * kLanes * 2);
}

/// Calls use(k, weights) for k in [begin, end), which start at a multiple of 64.
template <Kind kKind, typename Use>
SLMC_INLINE void for_weights(const std::byte* panel, int64_t begin, int64_t end, const Use& use) {
  if constexpr (kKind == Kind::kQ8 || kKind == Kind::kQ4) {
    constexpr int64_t kGroup = kKind == Kind::kQ8 ? kQ8Group : kQ4Group,
                      kHalf = kKind == Kind::kQ8 ? 512 : 256;
    for (int64_t k = begin; k < end; k += kBlock) {
      const std::byte* group = panel + k / 64 * kGroup;
      const int64_t half = k / kBlock % 2;
      const V scale = load_f16(group + half * kLanes * 2);
      const std::byte* data = group + 64 + half * kHalf;
      for (int64_t v = 0; v < 8; ++v) {
        V four[4];
        if constexpr (kKind == Kind::kQ8) {
          unpack_q8(data + v * 64, four);
        } else {
          unpack_q4(data + v / 2 * 64, v % 2 != 0, four);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) use(k + v * 4 + j, mul(four[j], scale));
      }
    }
  } else {
    for (int64_t k = begin; k < end; ++k) use(k, weight_at<kKind>(panel, k));
  }
}

/// One token: each panel is one chain, read once.
template <Kind kKind>
static void multiply_one(const Matmul& job) {
  for (int64_t p = job.panel_begin; p < job.panel_end; ++p) {
    V acc = broadcast(0.0f);
    const float* x = job.x;
    for_weights<kKind>(
        job.weights + p * job.panel_bytes, 0,
        job.k, [&](int64_t k, V weight) __attribute__((always_inline)) {
          acc = fma(weight, broadcast(x[k]), acc);
        });
    const int64_t lanes = job.rows - p * kLanes;
    if (lanes < kLanes) {
      store_part(job.out + p * kLanes, acc, lanes);
    } else {
      store(job.out + p * kLanes, acc);
    }
  }
}

/// Several tokens: panels are decoded, some depth at a time, into scratch, and swept over the
/// tokens.
template <Kind kKind>
static void multiply_many(const Matmul& job) {
  for (int64_t p = job.panel_begin; p < job.panel_end; p += SLMC_TILE_PANELS) {
    const int64_t panels =
        p + SLMC_TILE_PANELS <= job.panel_end ? SLMC_TILE_PANELS : job.panel_end - p;
    const int64_t left = job.rows - (p + panels - 1) * kLanes, last = left < kLanes ? left : kLanes;
    for (int64_t k = 0; k < job.k; k += kDepth) {
      const int64_t depth = job.k - k < kDepth ? job.k - k : kDepth;
      Tile piece{};
      if constexpr (kKind == Kind::kF32) {
        piece.w = reinterpret_cast<const float*>(job.weights + p * job.panel_bytes) + k * kLanes;
        piece.w_panel = job.panel_bytes / 4;
      } else {
        for (int64_t i = 0; i < panels; ++i) {
          float* to = job.scratch + i * kDepth * kLanes;
          for_weights<kKind>(
              job.weights + (p + i) * job.panel_bytes, k,
              k + depth, [&](int64_t at, V weight) __attribute__((always_inline)) {
                store(to + (at - k) * kLanes, weight);
              });
        }
        piece.w = job.scratch;
        piece.w_panel = kDepth * kLanes;
      }
      piece.w_step = kLanes;
      piece.panels = panels;
      piece.k = depth;
      piece.x = job.x + k;
      piece.x_stride = job.x_stride;
      piece.tokens = job.tokens;
      piece.out = job.out + p * kLanes;
      piece.out_stride = job.out_stride;
      piece.accumulate = k > 0;
      sweep(piece, last);
    }
  }
}

template <Kind kKind>
static void multiply_floats(const Matmul& job) {
  if (job.tokens == 1) {
    multiply_one<kKind>(job);
  } else {
    multiply_many<kKind>(job);
  }
}

/// One panel times kTokens tokens of int8 codes.
template <Kind kKind, int kTokens>
static __attribute__((noinline)) void integer_tile(const std::byte* panel, int64_t k,
                                                   const QuantizedRows& x, int64_t token,
                                                   float* out, int64_t out_stride, int64_t lanes) {
  constexpr int64_t kGroup = kKind == Kind::kQ8 ? kQ8Group : kQ4Group,
                    kHalf = kKind == Kind::kQ8 ? 512 : 256;
  const int64_t blocks = k / kBlock;
  const int8_t* codes = x.codes + token * k;
  const float* scales = x.scales + token * blocks;
  const int32_t* sums = x.sums + token * blocks;
  V acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = broadcast(0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* group = panel + b / 2 * kGroup;
    const V weight_scale = load_f16(group + b % 2 * kLanes * 2);
    I dots[kTokens];
    if constexpr (kKind == Kind::kQ8) {
      dot_q8<kTokens>(group + 64 + b % 2 * kHalf, codes + b * kBlock, k, sums + b, blocks, dots);
    } else {
      dot_q4<kTokens>(group + 64 + b % 2 * kHalf, codes + b * kBlock, k, sums + b, blocks, dots);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      acc[t] = fma(to_float(dots[t]), mul(weight_scale, broadcast(scales[t * blocks + b])), acc[t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) {
    if (lanes < kLanes) {
      store_part(out + t * out_stride, acc[t], lanes);
    } else {
      store(out + t * out_stride, acc[t]);
    }
  }
}

template <Kind kKind>
static void multiply_integers(const Matmul& job) {
  for (int64_t p = job.panel_begin; p < job.panel_end; ++p) {
    const std::byte* panel = job.weights + p * job.panel_bytes;
    const int64_t left = job.rows - p * kLanes, lanes = left < kLanes ? left : kLanes;
    int64_t t = 0;
    float* out = job.out + p * kLanes;
    for (; t + SLMC_INTEGER_TOKENS <= job.tokens; t += SLMC_INTEGER_TOKENS) {
      integer_tile<kKind, SLMC_INTEGER_TOKENS>(panel, job.k, *job.quantized, t,
                                               out + t * job.out_stride, job.out_stride, lanes);
    }
    for (; t < job.tokens; ++t)
      integer_tile<kKind, 1>(panel, job.k, *job.quantized, t, out + t * job.out_stride,
                             job.out_stride, lanes);
  }
}

static void matmul(const Matmul& job) {
  if (job.quantized)
    return job.kind == Kind::kQ8 ? multiply_integers<Kind::kQ8>(job)
                                 : multiply_integers<Kind::kQ4>(job);
  switch (job.kind) {
    case Kind::kF32:
      return multiply_floats<Kind::kF32>(job);
    case Kind::kF16:
      return multiply_floats<Kind::kF16>(job);
    case Kind::kBF16:
      return multiply_floats<Kind::kBF16>(job);
    case Kind::kQ8:
      return multiply_floats<Kind::kQ8>(job);
    case Kind::kQ4:
      return multiply_floats<Kind::kQ4>(job);
  }
}
