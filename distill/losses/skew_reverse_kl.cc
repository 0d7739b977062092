// Skew reverse KL (DistiLLM, Ko et al. 2024): KL(q || m) with m = (1 - alpha) p + alpha q.
// dL/dq = log(q/m) - alpha q/m, a constant apart.
#include "distill/loss.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES double skew_reverse_kl(const LossRow& row, float alpha, float* gradient) {
  const float *const p = row.p, *const q = row.q, *const log_q = row.log_q;
  const float rest = 1.0f - alpha;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.vocab; ++i) {
    const float m = rest * p[i] + alpha * q[i];
    const float bounded = m > 1e-37f ? m : 1e-37f;
    const float term = q[i] > 0.0f ? q[i] * (log_q[i] - fast_log(bounded)) : 0.0f;
    gradient[i] = term - alpha * q[i] * (q[i] / bounded);
    sum += static_cast<double>(term);
  }
  return sum;
}

class SkewReverseKl : public DistributionLoss {
 public:
  std::string_view name() const override { return "skew_reverse_kl"; }
  std::string_view summary() const override {
    return "KL(q || m), m = (1 - alpha) p + alpha q: reverse KL with bounded gradients";
  }
  bool needs_teacher() const override { return true; }
  bool weighs_unlikely() const override { return true; }
  std::vector<LossParameter> parameters() override { return {{"alpha", &alpha_, 0, 1 - 1e-6}}; }
  double row(const LossRow& row, float* gradient) const override {
    return skew_reverse_kl(row, static_cast<float>(alpha_), gradient);
  }

 private:
  double alpha_ = 0.1;  // The student's share of the mixture.
};

}  // namespace

std::unique_ptr<Loss> loss_skew_reverse_kl() { return std::make_unique<SkewReverseKl>(); }

}  // namespace slmc
