// 64-bit Arm without extensions: 16 lanes are four registers.
#include <arm_neon.h>

#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

#define SLMC_TILE_PANELS 1
#define SLMC_TILE_TOKENS 6
#define SLMC_INTEGER_TOKENS 4
#define SLMC_VECTOR static inline __attribute__((always_inline))

struct V {
  float32x4_t v[4];
};
struct I {
  int32x4_t v[4];
};

template <typename Body>
SLMC_VECTOR V each(const Body& body) {
  return {{body(0), body(1), body(2), body(3)}};
}

SLMC_VECTOR V load(const float* from) {
  return each([&](int i) { return vld1q_f32(from + 4 * i); });
}
SLMC_VECTOR void store(float* to, V a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(to + 4 * i, a.v[i]);
}
SLMC_VECTOR V broadcast(float a) {
  return each([&](int) { return vdupq_n_f32(a); });
}
SLMC_VECTOR V add(V a, V b) {
  return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
SLMC_VECTOR V sub(V a, V b) {
  return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
SLMC_VECTOR V mul(V a, V b) {
  return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
SLMC_VECTOR V div(V a, V b) {
  return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
SLMC_VECTOR V fma(V a, V b, V c) {
  return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// Not vmaxq: that gives NaN where the definition a > b ? a : b gives b.
SLMC_VECTOR V larger(V a, V b) {
  return each([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
SLMC_VECTOR V smaller(V a, V b) {
  return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
SLMC_VECTOR uint16x4_t load_halves(const std::byte* from, int i) {
  return vld1_u16(reinterpret_cast<const uint16_t*>(from) + 4 * i);
}
SLMC_VECTOR V load_f16(const std::byte* from) {
  return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(from, i))); });
}
SLMC_VECTOR V load_bf16(const std::byte* from) {
  return each([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(load_halves(from, i), 16)); });
}
SLMC_VECTOR V power_of_two(V shifted) {
  return each([&](int i) {
    return vreinterpretq_f32_u32(
        vaddq_u32(vshlq_n_u32(vreinterpretq_u32_f32(shifted.v[i]), 23), vdupq_n_u32(0x3f800000u)));
  });
}
SLMC_VECTOR uint32_t largest_magnitude(V a, V b) {
  uint32x4_t top = vdupq_n_u32(0);
  for (int i = 0; i < 4; ++i) {
    top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(a.v[i])));
    top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(b.v[i])));
  }
  return vmaxvq_u32(top);
}
SLMC_VECTOR V to_float(I a) {
  return each([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}

SLMC_VECTOR V load_i8(const std::byte* from) {
  const int8x16_t bytes = vld1q_s8(reinterpret_cast<const int8_t*>(from));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}
SLMC_VECTOR V load_u8(const std::byte* from) {
  const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const uint8_t*>(from));
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_high_u16(low)),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_high_u16(high))}};
}

/// Byte j of each row's four, as floats, from 64 signed bytes [16][4].
SLMC_VECTOR void widen(const int8x16_t* rows, V* four) {
  for (int i = 0; i < 4; ++i) {
    const int32x4_t all = vreinterpretq_s32_s8(rows[i]);
    four[0].v[i] = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(all, 24), 24));
    four[1].v[i] = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(all, 16), 24));
    four[2].v[i] = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(all, 8), 24));
    four[3].v[i] = vcvtq_f32_s32(vshrq_n_s32(all, 24));
  }
}

SLMC_VECTOR void unpack_8(const std::byte* from, V* four) {
  int8x16_t rows[4];
  for (int i = 0; i < 4; ++i) rows[i] = vld1q_s8(reinterpret_cast<const int8_t*>(from) + 16 * i);
  widen(rows, four);
}

/// The low or high nibbles of 16 bytes, less kBias.
template <int kBias>
SLMC_VECTOR int8x16_t nibbles(const std::byte* from, bool high) {
  const uint8x16_t both = vld1q_u8(reinterpret_cast<const uint8_t*>(from));
  const uint8x16_t codes = high ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15));
  return vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(kBias));
}

template <int kBias>
SLMC_VECTOR void unpack_4(const std::byte* from, bool high, V* four) {
  int8x16_t rows[4];
  for (int i = 0; i < 4; ++i) rows[i] = nibbles<kBias>(from + 16 * i, high);
  widen(rows, four);
}

/// sum[row] += the four products of each of four rows.
SLMC_VECTOR int32x4_t add_dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x))),
                  high = vpaddlq_s16(vmull_high_s8(w, x));
  return vaddq_s32(sum, vpaddq_s32(low, high));
}

SLMC_VECTOR int8x16_t four_codes(const int8_t* from) {
  int32_t bits;
  __builtin_memcpy(&bits, from, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}

template <int kTokens, int kVectors>
SLMC_VECTOR void dot_8(const std::byte* data, const int8_t* codes, int64_t stride, const int32_t*,
                       int64_t, I* dots) {
  for (int t = 0; t < kTokens; ++t) dots[t] = {};
  for (int v = 0; v < kVectors; ++v) {
    for (int i = 0; i < 4; ++i) {
      const int8x16_t w = vld1q_s8(reinterpret_cast<const int8_t*>(data) + v * 64 + i * 16);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t)
        dots[t].v[i] = add_dot(dots[t].v[i], w, four_codes(codes + t * stride + v * 4));
    }
  }
}

template <int kTokens, int kBias>
SLMC_VECTOR void dot_4(const std::byte* data, const int8_t* codes, int64_t stride, const int32_t*,
                       int64_t, I* dots) {
  for (int t = 0; t < kTokens; ++t) dots[t] = {};
  for (int v = 0; v < 4; ++v) {
    for (int i = 0; i < 4; ++i) {
      const int8x16_t low = nibbles<kBias>(data + v * 64 + i * 16, false),
                      high = nibbles<kBias>(data + v * 64 + i * 16, true);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int8_t* x = codes + t * stride + v * 8;
        dots[t].v[i] = add_dot(add_dot(dots[t].v[i], low, four_codes(x)), high, four_codes(x + 4));
      }
    }
  }
}

#include "compress/runtime/kernels/simd_body.h"

}  // namespace

const Set& neon_set() {
  static constexpr Set set = {"neon",        tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
