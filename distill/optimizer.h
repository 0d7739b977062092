// One update of AdamW over flat buffers of f32. Every element is computed by itself, so results do
// not depend on threads, or on how a buffer is divided.
#pragma once

#include <cstdint>

#include "distill/training.h"

namespace slmc {

/// Step number `step` counts from 1. The gradient is multiplied by `gradient_scale` first. Elements
/// [0, decayed) have weight decay. `mask`, if not null: elements whose byte is 0 are kept at 0.
void adamw_step(const AdamOptions& options, int64_t n, int64_t decayed, int64_t step, double rate,
                double gradient_scale, float* weights, float* first, float* second,
                const float* gradient, const uint8_t* mask);

}  // namespace slmc
