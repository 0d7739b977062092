// AdamW over flat buffers of f32. All reductions run in fixed pieces, so results do not depend on
// the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "distill/training.h"

namespace slmc {

/// Adds lanes[1..] to lanes[0], elementwise and in order, and returns the L2 norm of the sum. Each
/// lane has n elements.
double sum_gradients(const std::vector<float*>& lanes, int64_t n);

/// Step number `step` counts from 1. The gradient is multiplied by `gradient_scale` first. Elements
/// [0, decayed) have weight decay. `mask`, if not null: elements whose byte is 0 are kept at 0.
void adamw_step(const AdamOptions& options, int64_t n, int64_t decayed, int64_t step, double rate,
                double gradient_scale, float* weights, float* first, float* second,
                const float* gradient, const uint8_t* mask);

}  // namespace slmc
