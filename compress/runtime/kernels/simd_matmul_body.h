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

/// A group of codes: where things lie in it (kernels.h).
template <Kind kKind>
struct Group {
  static constexpr Packing kPacking = packing_of(kKind);
  static constexpr bool kSuper = kPacking.span == 256;
  static constexpr bool kHalves = kPacking.sub == 16;
  const std::byte* at;  ///< The header.
  int64_t block;        ///< Of 32 k, within the group.

  __attribute__((always_inline)) Group(const std::byte* panel, int64_t k)
      : at(panel + k / kPacking.span * group_bytes(kPacking)), block(k % kPacking.span / kBlock) {}
  __attribute__((always_inline)) const std::byte* codes() const {
    return at + kPacking.header + block * kPacking.block;
  }
  /// The scale of the block without its byte of a super-block's header.
  __attribute__((always_inline)) V d() const {
    if constexpr (kPacking.span == 32) return load(reinterpret_cast<const float*>(at));
    return load_f16(at + (kSuper ? 0 : block * kLanes * 2));
  }
  __attribute__((always_inline)) V dmin() const {
    if constexpr (kPacking.span == 32) return load(reinterpret_cast<const float*>(at + 64));
    return load_f16(at + kLanes * 2);
  }
  /// Bytes of a super-block's header for sub-block `half` of the block.
  __attribute__((always_inline)) V scale_byte(int64_t half) const {
    return load_i8(at + 64 + (block * (kHalves ? 2 : 1) + half) * kLanes);
  }
  __attribute__((always_inline)) V minimum_byte(int64_t half) const {
    return load_u8(at + 64 + (256 / kPacking.sub + block * (kHalves ? 2 : 1) + half) * kLanes);
  }
  __attribute__((always_inline)) V scale(int64_t half) const {
    return kSuper ? mul(d(), scale_byte(half)) : d();
  }
  __attribute__((always_inline)) V minimum(int64_t half) const {
    return kSuper ? mul(dmin(), minimum_byte(half)) : dmin();
  }
};

/// Calls use(k, weights) for k in [begin, end), which start at a multiple of 64.
template <Kind kKind, typename Use>
SLMC_INLINE void for_weights(const std::byte* panel, int64_t begin, int64_t end, const Use& use) {
  constexpr Packing kPacking = packing_of(kKind);
  if constexpr (kPacking.span > 0) {
    for (int64_t k = begin; k < end; k += kBlock) {
      const Group<kKind> group(panel, k);
      const std::byte* codes = group.codes();
      for (int64_t half = 0; half < kBlock / kPacking.sub; ++half) {
        const V scale = group.scale(half);
        V minimum{};
        if constexpr (kPacking.minimum) minimum = group.minimum(half);
        for (int64_t v = half * kPacking.sub / 4; v < (half + 1) * kPacking.sub / 4; ++v) {
          V four[4];
          if constexpr (kPacking.block == 512) {
            unpack_8(codes + v * 64, four);
          } else {
            unpack_4<kPacking.bias>(codes + v / 2 * 64, v % 2 != 0, four);
          }
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            const V product = mul(four[j], scale);
            if constexpr (kPacking.minimum) {
              use(k + v * 4 + j, sub(product, minimum));
            } else {
              use(k + v * 4 + j, product);
            }
          }
        }
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

/// The block's contribution for kTokens tokens: acc = fma(float(dot), scale * x_scale, acc), then
/// what the minimum takes off. Where scales are for 16 k, the halves' dots are multiplied by their
/// bytes first; in floats, because the products stay below 2^24 and are exact there.
template <Kind kKind, int kTokens>
SLMC_INLINE void add_block(const Group<kKind>& group, const int8_t* codes, int64_t k,
                           const float* scales, int64_t blocks, const int32_t* sums, V* acc) {
  constexpr Packing kPacking = packing_of(kKind);
  V dots[kTokens];
  I whole[kTokens];
  if constexpr (kPacking.sub == 16) {
    I second[kTokens];
    dot_8<kTokens, 4>(group.codes(), codes, k, sums, k / 16, whole);
    dot_8<kTokens, 4>(group.codes() + 256, codes + 16, k, sums + 1, k / 16, second);
    const V first_scale = group.scale_byte(0), second_scale = group.scale_byte(1);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t)
      dots[t] = fma(to_float(second[t]), second_scale, mul(to_float(whole[t]), first_scale));
  } else {
    if constexpr (kPacking.block == 512) {
      dot_8<kTokens, 8>(group.codes(), codes, k, sums, k / 16, whole);
    } else {
      dot_4<kTokens, kPacking.bias>(group.codes(), codes, k, sums, k / 16, whole);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) dots[t] = to_float(whole[t]);
  }
  const V scale = kPacking.sub == 16 ? group.d() : group.scale(0);
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t)
    acc[t] = fma(dots[t], mul(scale, broadcast(scales[t * blocks])), acc[t]);
  if constexpr (kPacking.minimum) {
    const V minimum = kPacking.sub == 16 ? group.dmin() : group.minimum(0);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int32_t* sum = sums + t * (k / 16);
      V off;
      if constexpr (kPacking.sub == 16) {
        off = fma(broadcast(static_cast<float>(sum[1])), group.minimum_byte(1),
                  mul(broadcast(static_cast<float>(sum[0])), group.minimum_byte(0)));
      } else {
        off = broadcast(static_cast<float>(sum[0] + sum[1]));
      }
      acc[t] = fma(off, mul(minimum, broadcast(-scales[t * blocks])), acc[t]);
    }
  }
}

/// One panel times kTokens tokens of int8 codes.
template <Kind kKind, int kTokens>
static __attribute__((noinline)) void integer_tile(const std::byte* panel, int64_t k,
                                                   const QuantizedRows& x, int64_t token,
                                                   float* out, int64_t out_stride, int64_t lanes) {
  const int64_t blocks = k / kBlock;
  const int8_t* codes = x.codes + token * k;
  const float* scales = x.scales + token * blocks;
  const int32_t* sums = x.sums + token * (k / 16);
  V acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = broadcast(0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    const Group<kKind> group(panel, b * kBlock);
    add_block<kKind, kTokens>(group, codes + b * kBlock, k, scales + b, blocks, sums + 2 * b, acc);
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

template <Kind kKind>
static void multiply(const Matmul& job) {
  if constexpr (packing_of(kKind).span > 0) {
    if (job.quantized) return multiply_integers<kKind>(job);
  }
  if (job.tokens == 1) {
    multiply_one<kKind>(job);
  } else {
    multiply_many<kKind>(job);
  }
}

static void matmul(const Matmul& job) {
  switch (job.kind) {
    case Kind::kF32:
      return multiply<Kind::kF32>(job);
    case Kind::kF16:
      return multiply<Kind::kF16>(job);
    case Kind::kBF16:
      return multiply<Kind::kBF16>(job);
    case Kind::kQ8:
      return multiply<Kind::kQ8>(job);
    case Kind::kQ4:
      return multiply<Kind::kQ4>(job);
    case Kind::kSub32:
      return multiply<Kind::kSub32>(job);
    case Kind::kSub32Min:
      return multiply<Kind::kSub32Min>(job);
    case Kind::kSuper4:
      return multiply<Kind::kSuper4>(job);
    case Kind::kSuper8:
      return multiply<Kind::kSuper8>(job);
    case Kind::kSuper8Min:
      return multiply<Kind::kSuper8Min>(job);
  }
}
