// Skew KL (DistiLLM, Ko et al. 2024): KL(p || m) with m = alpha p + (1 - alpha) q.
// dL/dq = -(1 - alpha) p/m.
#include "distill/loss.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES double skew_kl(const LossRow& row, float alpha, float* gradient) {
  const float *const p = row.p, *const log_p = row.log_p, *const q = row.q;
  const float rest = 1.0f - alpha;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.vocab; ++i) {
    const float m = alpha * p[i] + rest * q[i];
    const float bounded = m > 1e-37f ? m : 1e-37f;
    gradient[i] = -rest * p[i] * (q[i] / bounded);
    const float term = p[i] > 0.0f ? p[i] * (log_p[i] - fast_log(bounded)) : 0.0f;
    sum += static_cast<double>(term);
  }
  return sum;
}

class SkewKl : public DistributionLoss {
 public:
  std::string_view name() const override { return "skew_kl"; }
  std::string_view summary() const override {
    return "KL(p || m), m = alpha p + (1 - alpha) q: forward KL with bounded gradients";
  }
  bool needs_teacher() const override { return true; }
  std::vector<LossParameter> parameters() override { return {{"alpha", &alpha_, 0, 1 - 1e-6}}; }
  double row(const LossRow& row, float* gradient) const override {
    return skew_kl(row, static_cast<float>(alpha_), gradient);
  }

 private:
  double alpha_ = 0.1;  // The teacher's share of the mixture.
};

}  // namespace

std::unique_ptr<Loss> loss_skew_kl() { return std::make_unique<SkewKl>(); }

}  // namespace slmc
