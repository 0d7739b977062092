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

float scale_of(const std::byte* group, int64_t half, int64_t lane) {
  uint16_t bits;
  __builtin_memcpy(&bits, group + (half * kLanes + lane) * 2, 2);
  return from_f16(bits);
}

/// Code of row `lane` at k in a panel of kQ8 or kQ4.
int32_t code_of(Kind kind, const std::byte* panel, int64_t k, int64_t lane) {
  const int64_t half = k / kBlock % 2, j = k % kBlock;
  if (kind == Kind::kQ8) {
    const std::byte* data = panel + k / 64 * kQ8Group + 64 + half * 512;
    return static_cast<int8_t>(data[j / 4 * 64 + lane * 4 + j % 4]);
  }
  const std::byte* data = panel + k / 64 * kQ4Group + 64 + half * 256;
  const uint32_t byte = static_cast<uint32_t>(data[j / 8 * 64 + lane * 4 + j % 4]);
  return static_cast<int32_t>(j % 8 < 4 ? byte & 15u : byte >> 4) - 8;
}

float weight_of(Kind kind, const std::byte* panel, int64_t k, int64_t lane) {
  if (kind == Kind::kF32) {
    float value;
    __builtin_memcpy(&value, panel + (k * kLanes + lane) * 4, 4);
    return value;
  }
  if (kind == Kind::kF16 || kind == Kind::kBF16) {
    uint16_t bits;
    __builtin_memcpy(&bits, panel + (k * kLanes + lane) * 2, 2);
    return kind == Kind::kF16 ? from_f16(bits) : from_bf16(bits);
  }
  const std::byte* group = panel + k / 64 * (kind == Kind::kQ8 ? kQ8Group : kQ4Group);
  return static_cast<float>(code_of(kind, panel, k, lane)) * scale_of(group, k / kBlock % 2, lane);
}

float dot_f32(const Matmul& job, const std::byte* panel, int64_t lane, int64_t t) {
  float acc = 0.0f;
  for (int64_t k = 0; k < job.k; ++k)
    acc = fma(weight_of(job.kind, panel, k, lane), job.x[t * job.x_stride + k], acc);
  return acc;
}

float dot_quantized(const Matmul& job, const std::byte* panel, int64_t lane, int64_t t) {
  const int64_t blocks = job.k / kBlock;
  float acc = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) {
    const int8_t* x = job.quantized->codes + t * job.k + b * kBlock;
    int32_t dot = 0;
    for (int64_t j = 0; j < kBlock; ++j)
      dot += code_of(job.kind, panel, b * kBlock + j, lane) * x[j];
    const std::byte* group = panel + b / 2 * (job.kind == Kind::kQ8 ? kQ8Group : kQ4Group);
    acc = fma(static_cast<float>(dot),
              scale_of(group, b % 2, lane) * job.quantized->scales[t * blocks + b], acc);
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
    sums[b] = 0;
    for (int64_t j = 0; j < kBlock; ++j) {
      codes[j] = static_cast<int8_t>(to_bits(x[j] * inverse + kRounder) & 0xffu);
      sums[b] += codes[j];
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

const Set& scalar_set() {
  static constexpr Set set = {"scalar",      tile,          matmul,  rms_norm,
                              silu_multiply, softmax_block, scale,   quantize_row,
                              f16_to_f32,    exp_many,      read_all};
  return set;
}

}  // namespace slmc::kernels
