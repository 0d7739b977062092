#include "distill/optimizer.h"

#include <cmath>

#include "compress/core/parallel.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

constexpr int64_t kPiece = 1 << 16;

struct Coefficients {
  float scale, beta1, beta2, keep, step_size, inverse_root_correction, epsilon;
};

SLMC_CLONES void update(const Coefficients& c, int64_t n, float* w, float* m, float* v,
                        const float* g) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] * c.scale;
    m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * gradient;
    v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * gradient * gradient;
    w[i] = w[i] * c.keep -
           c.step_size * m[i] / (__builtin_sqrtf(v[i]) * c.inverse_root_correction + c.epsilon);
  }
}

}  // namespace

void adamw_step(const AdamOptions& options, int64_t n, int64_t decayed, int64_t step, double rate,
                double gradient_scale, float* weights, float* first, float* second,
                const float* gradient, const uint8_t* mask) {
  const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(step));
  Coefficients c{.scale = static_cast<float>(gradient_scale),
                 .beta1 = static_cast<float>(options.beta1),
                 .beta2 = static_cast<float>(options.beta2),
                 .keep = 1.0f,
                 .step_size = static_cast<float>(rate / correction1),
                 .inverse_root_correction = static_cast<float>(1.0 / std::sqrt(correction2)),
                 .epsilon = static_cast<float>(options.epsilon)};
  const auto run = [&](int64_t from, int64_t to, float keep) {
    c.keep = keep;
    parallel_ranges(to - from, kPiece, [&](int64_t begin, int64_t end) {
      const int64_t a = from + begin;
      update(c, end - begin, weights + a, first + a, second + a, gradient + a);
      if (mask == nullptr) return;
      for (int64_t i = a; i < from + end; ++i)
        if (mask[i] == 0) weights[i] = 0.0f;
    });
  };
  run(0, decayed, static_cast<float>(1.0 - rate * options.weight_decay));
  run(decayed, n, 1.0f);
}

}  // namespace slmc
