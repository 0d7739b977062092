// The arithmetic between matrix products that only some families need: LayerNorm, activations other
// than SiLU, soft caps. Written once over the kernel set's exp, so that every instruction set gives
// the same bits (docs/arithmetic.md).
#pragma once

#include <cstdint>

#include "formats/architecture.h"

namespace slmc {

/// out[i] = (x[i] - mean) / sqrt(variance + eps) * weight[i] + bias[i]; `out` may be `x`.
void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                float* out);
/// x[i] = activation(x[i]), times up[i] unless `up` is null.
void activate(Activation activation, float* x, const float* up, int64_t n);
/// x[i] = cap * tanh(x[i] * scale / cap).
void soft_cap(float* x, int64_t n, float scale, float cap);

}  // namespace slmc
