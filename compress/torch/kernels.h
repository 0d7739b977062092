// The elementwise parts of a block, fused and single-pass, for training on a CPU. No LibTorch here:
// plain arrays. Each runs in the calling thread, as training lanes are threads of their own.
#pragma once

#include <cstdint>

namespace slmc::libtorch {

/// y = x * rstd * w, rstd[r] = 1/sqrt(mean(x^2) + eps). x, y: [rows, width].
void rms_norm_forward(int64_t rows, int64_t width, float eps, const float* x, const float* w,
                      float* y, float* rstd);
/// dx as the derivative; dw [width] is added to.
void rms_norm_backward(int64_t rows, int64_t width, const float* x, const float* w,
                       const float* rstd, const float* dy, float* dx, float* dw);

/// y = silu(gate) * up; gate_up: [rows, 2 * width], gate first. y: [rows, width].
void swiglu_forward(int64_t rows, int64_t width, const float* gate_up, float* y);
void swiglu_backward(int64_t rows, int64_t width, const float* gate_up, const float* dy,
                     float* dgate_up);

/// Rotates the first `dims` values of each of `heads` heads of `head_dim` by the row's angle: pair
/// (i, i + dims/2). Row r has position r % period; cosine, sine: [period, dims/2]. `direction` -1
/// gives the inverse. Rows are `in_stride` and `out_stride` floats apart.
void rotate_heads(int64_t rows, int64_t period, int64_t heads, int64_t head_dim, int64_t dims,
                  const float* cosine, const float* sine, float direction, const float* in,
                  int64_t in_stride, float* out, int64_t out_stride);

/// y[i] = x[i] / (1 - p), or 0 with probability p: element i of stream `seed` decides, so that the
/// same call gives the same choice in the backward pass.
void dropout(int64_t n, uint64_t seed, double p, const float* x, float* y);

/// table[ids[r]] += rows[r]. rows: [count, width].
void add_rows(int64_t count, int64_t width, const int32_t* ids, const float* rows, float* table);

}  // namespace slmc::libtorch
