// The reference of the canonical arithmetic: plain loops in the order that docs/arithmetic.md
// fixes. Every other set must give these bits.
#include "compress/runtime/kernels/kernels.h"

namespace slmc::kernels {
namespace {

float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

uint32_t to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

float from_bf16(uint16_t half) { return from_bits(static_cast<uint32_t>(half) << 16); }

float from_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = half & 0x7fffu;
  if (rest >= 0x7c00u)
    return from_bits(sign | 0x7f800000u | (rest << 13) | (rest > 0x7c00u ? 0x400000u : 0u));
  if (rest >= 0x0400u) return from_bits(sign | ((rest << 13) + 0x38000000u));
  const float tiny = static_cast<float>(rest) * 0x1p-24f;  // Subnormal: a multiple of 2^-24, exact.
  return from_bits(sign | to_bits(tiny));
}

constexpr float kRounder =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even.

float exp_one(float x) {
  x = -87.0f > x ? -87.0f : x;
  x = 88.0f < x ? 88.0f : x;
  const float shifted = fma(x, 0x1.715476p+0f, kRounder);
  const float n = shifted - kRounder;
  const float r = fma(n, 0x1.05c61p-29f, fma(n, -0x1.62e43p-1f, x));
  float p = 0x1.a01a02p-13f;  // Taylor, 1/7! to 1/0!.
  p = fma(p, r, 0x1.6c16c2p-10f);
  p = fma(p, r, 0x1.111112p-7f);
  p = fma(p, r, 0x1.555556p-5f);
  p = fma(p, r, 0x1.555556p-3f);
  p = fma(p, r, 0.5f);
  p = fma(p, r, 1.0f);
  p = fma(p, r, 1.0f);
  return p *
         from_bits((to_bits(shifted) << 23) + 0x3f800000u);  // The low bits of `shifted` hold n.
}

/// Sum of 16 lanes: halves added to halves.
float tree(float* lane) {
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] = lane[i] + lane[i + width];
  }
  return lane[0];
}

void tile(const Tile& job) {
  for (int64_t t = 0; t < job.tokens; ++t) {
    for (int64_t p = 0; p < job.panels; ++p) {
      float* out = job.out + t * job.out_stride + p * kLanes;
      float acc[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane) acc[lane] = job.accumulate ? out[lane] : 0.0f;
      for (int64_t k = 0; k < job.k; ++k) {
        const float* w = job.w + p * job.w_panel + k * job.w_step;
        const float x = job.x[t * job.x_stride + k];
        for (int64_t lane = 0; lane < kLanes; ++lane) acc[lane] = fma(w[lane], x, acc[lane]);
      }
      for (int64_t lane = 0; lane < kLanes; ++lane) out[lane] = acc[lane];
    }
  }
}

float half_at(const std::byte* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, 2);
  return from_f16(bits);
}

float float_at(const std::byte* at) {
  float value;
  __builtin_memcpy(&value, at, 4);
  return value;
}

/// One row of a panel of codes.
struct CodeRow {
  Kind kind;
  Packing packing;
  const std::byte* panel;
  int64_t lane;

  const std::byte* group(int64_t k) const {
    return panel + k / packing.span * group_bytes(packing);
  }
  int64_t sub(int64_t k) const { return k % packing.span / packing.sub; }
  bool super() const { return packing.span == 256; }

  int32_t code(int64_t k) const {
    const int64_t j = k % kBlock;
    const std::byte* data =
        group(k) + packing.header + k % packing.span / kBlock * packing.block + lane * 4 + j % 4;
    if (packing.block == 512) return static_cast<int8_t>(data[j / 4 * 64]);
    const uint32_t byte = static_cast<uint32_t>(data[j / 8 * 64]);
    return static_cast<int32_t>(j % 8 < 4 ? byte & 15u : byte >> 4) - packing.bias;
  }
  /// What the header's scale bytes multiply; the scale itself where there are none.
  float d(int64_t k) const {
    if (packing.span == 32) return float_at(group(k) + lane * 4);
    return half_at(group(k) + ((super() ? 0 : sub(k) * kLanes) + lane) * 2);
  }
  int32_t scale_byte(int64_t k) const {
    return super() ? static_cast<int8_t>(group(k)[64 + sub(k) * kLanes + lane]) : 1;
  }
  float dmin(int64_t k) const {
    if (packing.span == 32) return float_at(group(k) + 64 + lane * 4);
    return half_at(group(k) + (kLanes + lane) * 2);
  }
  int32_t minimum_byte(int64_t k) const {
    const int64_t scales = 256 / packing.sub * kLanes;
    return super() ? static_cast<int32_t>(group(k)[64 + scales + sub(k) * kLanes + lane]) : 1;
  }
  float weight(int64_t k) const {
    const float scale = d(k) * static_cast<float>(scale_byte(k));
    const float product = static_cast<float>(code(k)) * scale;
    return packing.minimum ? product - dmin(k) * static_cast<float>(minimum_byte(k)) : product;
  }
};

float weight_of(Kind kind, const std::byte* panel, int64_t k, int64_t lane) {
  if (kind == Kind::kF32) return float_at(panel + (k * kLanes + lane) * 4);
  if (kind == Kind::kF16) return half_at(panel + (k * kLanes + lane) * 2);
  if (kind == Kind::kBF16) {
    uint16_t bits;
    __builtin_memcpy(&bits, panel + (k * kLanes + lane) * 2, 2);
    return from_bf16(bits);
  }
  return CodeRow{kind, packing_of(kind), panel, lane}.weight(k);
}

float dot_f32(const Matmul& job, const std::byte* panel, int64_t lane, int64_t t) {
  float acc = 0.0f;
  for (int64_t k = 0; k < job.k; ++k)
    acc = fma(weight_of(job.kind, panel, k, lane), job.x[t * job.x_stride + k], acc);
  return acc;
}

/// Per 32 k: scales of 16 k multiply their half of the integer dot before it becomes a float;
/// scales of 32 k multiply the block's.
float dot_quantized(const Matmul& job, const std::byte* panel, int64_t lane, int64_t t) {
  const CodeRow row{job.kind, packing_of(job.kind), panel, lane};
  const bool halves = row.packing.sub == 16;
  float acc = 0.0f;
  for (int64_t k = 0; k < job.k; k += kBlock) {
    const int8_t* x = job.quantized->codes + t * job.k + k;
    const int32_t* sums = job.quantized->sums + (t * job.k + k) / 16;
    const float x_scale = job.quantized->scales[(t * job.k + k) / kBlock];
    int32_t dot = 0, minimums = 0;
    for (int64_t j = 0; j < kBlock; ++j)
      dot += (halves ? row.scale_byte(k + j) : 1) * row.code(k + j) * x[j];
    const float scale = halves ? row.d(k) : row.d(k) * static_cast<float>(row.scale_byte(k));
    acc = fma(static_cast<float>(dot), scale * x_scale, acc);
    if (!row.packing.minimum) continue;
    for (int64_t half = 0; half < 2; ++half)
      minimums += (halves ? row.minimum_byte(k + 16 * half) : 1) * sums[half];
    const float minimum =
        halves ? row.dmin(k) : row.dmin(k) * static_cast<float>(row.minimum_byte(k));
    acc = fma(static_cast<float>(minimums), -(minimum * x_scale), acc);
  }
  return acc;
}

void matmul(const Matmul& job) {
  for (int64_t p = job.panel_begin; p < job.panel_end; ++p) {
    const std::byte* panel = job.weights + p * job.panel_bytes;
    for (int64_t t = 0; t < job.tokens; ++t) {
      for (int64_t lane = 0; lane < kLanes && p * kLanes + lane < job.rows; ++lane) {
        job.out[t * job.out_stride + p * kLanes + lane] =
            job.quantized ? dot_quantized(job, panel, lane, t) : dot_f32(job, panel, lane, t);
      }
    }
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lane[i % kLanes] = fma(x[i], x[i], lane[i % kLanes]);
  const float mean = tree(lane) / static_cast<float>(n);
  const float factor = 1.0f / __builtin_sqrtf(mean + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void silu_multiply(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + exp_one(-gate[i])) * up[i];
}

float softmax_block(float* scores, int64_t valid, float scale, float* maximum, float* sum) {
  float top = *maximum;
  for (int64_t j = 0; j < valid; ++j) {
    scores[j] = scores[j] * scale;
    top = scores[j] > top ? scores[j] : top;
  }
  float lane[kLanes] = {};
  for (int64_t j = 0; j < kAttentionBlock; ++j) {
    scores[j] = j < valid ? exp_one(scores[j] - top) : 0.0f;
    lane[j % kLanes] = lane[j % kLanes] + scores[j];
  }
  const float factor = exp_one(*maximum - top);
  *sum = fma(*sum, factor, tree(lane));
  *maximum = top;
  return factor;
}

void scale(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] * factor;
}

void quantize_row(const float* x, int64_t n, int8_t* codes, float* scales, int32_t* sums) {
  for (int64_t b = 0; b < n / kBlock; ++b, x += kBlock, codes += kBlock) {
    uint32_t top = 0;  // Magnitudes compared as integers, so that a NaN is the largest.
    for (int64_t j = 0; j < kBlock; ++j) {
      const uint32_t magnitude = to_bits(x[j]) & 0x7fffffffu;
      top = magnitude > top ? magnitude : top;
    }
    const bool zero = top < 0x04000000u;  // Below 2^-119, 127 / max would not be finite.
    const float inverse = zero ? 0.0f : 127.0f / from_bits(top);
    scales[b] = zero ? 0.0f : from_bits(top) / 127.0f;
    sums[2 * b] = sums[2 * b + 1] = 0;
    for (int64_t j = 0; j < kBlock; ++j) {
      codes[j] = static_cast<int8_t>(to_bits(x[j] * inverse + kRounder) & 0xffu);
      sums[2 * b + j / 16] += codes[j];
    }
  }
}

void f16_to_f32(const uint16_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = from_f16(in[i]);
}

void exp_many(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = exp_one(x[i]);
}

uint64_t read_all(const std::byte* from, int64_t bytes) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < bytes; i += 8) {
    uint64_t word;
    __builtin_memcpy(&word, from + i, 8);
    sum ^= word;
  }
  return sum;
}

}  // namespace

void decode_lane(Kind kind, const std::byte* panel, int64_t lane, int64_t k, float* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = weight_of(kind, panel, i, lane);
}

const Set& scalar_set() {
  static constexpr Set set = {"scalar",      tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
