#include "compress/torch/kernels.h"

#include <cmath>
#include <cstring>

#include "distill/vector_math.h"

namespace slmc::libtorch {

SLMC_CLONES void rms_norm_forward(int64_t rows, int64_t width, float eps, const float* x,
                                  const float* w, float* y, float* rstd) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const in = x + r * width;
    float* const out = y + r * width;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += in[i] * in[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    rstd[r] = scale;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = in[i] * scale * w[i];
  }
}

SLMC_CLONES void rms_norm_backward(int64_t rows, int64_t width, const float* x, const float* w,
                                   const float* rstd, const float* dy, float* dx, float* dw) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const in = x + r * width;
    const float* const g = dy + r * width;
    float* const out = dx + r * width;
    const float scale = rstd[r];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += g[i] * w[i] * in[i];
    const float k = dot * scale * scale * scale / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      out[i] = g[i] * w[i] * scale - in[i] * k;
      dw[i] += g[i] * in[i] * scale;
    }
  }
}

SLMC_CLONES void swiglu_forward(int64_t rows, int64_t width, const float* gate_up, float* y) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const gate = gate_up + 2 * r * width;
    const float* const up = gate + width;
    float* const out = y + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
  }
}

SLMC_CLONES void swiglu_backward(int64_t rows, int64_t width, const float* gate_up, const float* dy,
                                 float* dgate_up) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const gate = gate_up + 2 * r * width;
    const float* const up = gate + width;
    const float* const g = dy + r * width;
    float* const dgate = dgate_up + 2 * r * width;
    float* const dup = dgate + width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const float sigmoid = 1.0f / (1.0f + fast_exp(-gate[i]));
      const float silu = gate[i] * sigmoid;
      dup[i] = g[i] * silu;
      dgate[i] = g[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
  }
}

SLMC_CLONES void rotate_heads(int64_t rows, int64_t period, int64_t heads, int64_t head_dim,
                              int64_t dims, const float* cosine, const float* sine, float direction,
                              const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  const int64_t half = dims / 2;
  for (int64_t r = 0; r < rows; ++r) {
    const float* const c = cosine + (r % period) * half;
    const float* const s = sine + (r % period) * half;
    for (int64_t h = 0; h < heads; ++h) {
      const float* const a = in + r * in_stride + h * head_dim;
      float* const b = out + r * out_stride + h * head_dim;
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const float x = a[i];
        const float y = a[i + half];
        const float t = s[i] * direction;
        b[i] = x * c[i] - y * t;
        b[i + half] = y * c[i] + x * t;
      }
      if (dims < head_dim && a != b)
        std::memcpy(b + dims, a + dims, static_cast<size_t>(head_dim - dims) * sizeof(float));
    }
  }
}

SLMC_CLONES void dropout(int64_t n, uint64_t seed, double p, const float* x, float* y) {
  const auto limit = static_cast<uint64_t>(p * 0x1.0p32);
  const auto factor = static_cast<float>(1.0 / (1.0 - p));
  for (int64_t i = 0; i < n; ++i) {  // SplitMix64 at position i (compress/core/random.h).
    uint64_t z = seed + static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    y[i] = (z ^ (z >> 31)) >> 32 < limit ? 0.0f : x[i] * factor;
  }
}

void add_rows(int64_t count, int64_t width, const int32_t* ids, const float* rows, float* table) {
  for (int64_t r = 0; r < count; ++r) {
    float* const to = table + static_cast<int64_t>(ids[r]) * width;
    const float* const from = rows + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] += from[i];
  }
}

}  // namespace slmc::libtorch
