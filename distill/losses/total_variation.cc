// Half the sum of |p - q| (Wen et al. 2023). dL/dq = sign(q - p) / 2, 0 where they are equal.
#include "distill/loss.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES double total_variation(const LossRow& row, float* gradient) {
  const float *const p = row.p, *const q = row.q;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.vocab; ++i) {
    const float difference = q[i] - p[i];
    gradient[i] = difference > 0.0f ? 0.5f * q[i] : (difference < 0.0f ? -0.5f * q[i] : 0.0f);
    sum += static_cast<double>(difference > 0.0f ? difference : -difference);
  }
  return 0.5 * sum;
}

class TotalVariation : public DistributionLoss {
 public:
  std::string_view name() const override { return "total_variation"; }
  std::string_view summary() const override { return "half the L1 distance of the distributions"; }
  bool needs_teacher() const override { return true; }
  bool weighs_unlikely() const override { return true; }
  double row(const LossRow& row, float* gradient) const override {
    return total_variation(row, gradient);
  }
};

}  // namespace

std::unique_ptr<Loss> loss_total_variation() { return std::make_unique<TotalVariation>(); }

}  // namespace slmc
