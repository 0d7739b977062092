#include "compress/runtime/elementwise.h"

#include <algorithm>
#include <cmath>

#include "compress/runtime/isa.h"

namespace slmc {
namespace {

using kernels::kLanes;
constexpr int64_t kPiece = 256;

/// Sum of 16 lanes, halves added to halves.
float tree(float* lane) {
  for (int64_t width = kLanes / 2; width >= 1; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

/// y[i] = exp(y[i])
void exponentials(float* y, int64_t n) { kernel_set().exp(y, n, y); }

/// x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): what x (1 + tanh u) / 2 is.
void gelu_tanh(float* x, int64_t n) {
  float e[kPiece];
  for (int64_t i = 0; i < n; ++i) e[i] = -1.59576912f * (x[i] * (1.0f + 0.044715f * (x[i] * x[i])));
  exponentials(e, n);
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] / (1.0f + e[i]);
}

/// erfc by Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
void gelu(float* x, int64_t n) {
  float e[kPiece];
  for (int64_t i = 0; i < n; ++i) e[i] = -0.5f * (x[i] * x[i]);
  exponentials(e, n);
  for (int64_t i = 0; i < n; ++i) {
    const float z = std::fabs(x[i]) * 0.707106781f;
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float beyond = 0.5f * (p * t * e[i]);  // The normal distribution's tail beyond |x|.
    x[i] = x[i] >= 0 ? x[i] - x[i] * beyond : x[i] * beyond;
  }
}

void hyperbolic_tangent(float* x, int64_t n) {
  float e[kPiece];
  for (int64_t i = 0; i < n; ++i) e[i] = -2.0f * std::fabs(x[i]);
  exponentials(e, n);
  for (int64_t i = 0; i < n; ++i) x[i] = std::copysign((1.0f - e[i]) / (1.0f + e[i]), x[i]);
}

void silu(float* x, int64_t n) {
  float e[kPiece];
  for (int64_t i = 0; i < n; ++i) e[i] = -x[i];
  exponentials(e, n);
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] / (1.0f + e[i]);
}

void apply(Activation activation, float* x, int64_t n) {
  switch (activation) {
    case Activation::kSilu:
      return silu(x, n);
    case Activation::kGelu:
      return gelu(x, n);
    case Activation::kGeluTanh:
      return gelu_tanh(x, n);
    case Activation::kTanh:
      return hyperbolic_tangent(x, n);
    case Activation::kRelu:
      for (int64_t i = 0; i < n; ++i) x[i] = x[i] > 0.0f ? x[i] : x[i] * 0.0f;  // A NaN stays.
  }
}

}  // namespace

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                float* out) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lane[i % kLanes] += x[i];
  const float mean = tree(lane) / static_cast<float>(n);
  std::fill(lane, lane + kLanes, 0.0f);
  for (int64_t i = 0; i < n; ++i) lane[i % kLanes] += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / std::sqrt(tree(lane) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

void activate(Activation activation, float* x, const float* up, int64_t n) {
  if (activation == Activation::kSilu && up != nullptr) {
    kernel_set().silu_multiply(x, up, n);
    return;
  }
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t count = std::min(kPiece, n - at);
    apply(activation, x + at, count);
    if (up == nullptr) continue;
    for (int64_t i = at; i < at + count; ++i) x[i] *= up[i];
  }
}

void soft_cap(float* x, int64_t n, float scale, float cap) {
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t count = std::min(kPiece, n - at);
    for (int64_t i = at; i < at + count; ++i) x[i] = x[i] * scale / cap;
    hyperbolic_tangent(x + at, count);
    for (int64_t i = at; i < at + count; ++i) x[i] *= cap;
  }
}

}  // namespace slmc
