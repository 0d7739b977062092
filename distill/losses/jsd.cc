// Generalised Jensen-Shannon divergence (GKD, Agarwal et al. 2023): with m = beta p + (1 - beta) q,
// beta KL(p || m) + (1 - beta) KL(q || m). dL/dq = (1 - beta) log(q/m), a constant apart.
#include "distill/loss.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES double jsd(const LossRow& row, float beta, float* gradient) {
  const float *const p = row.p, *const log_p = row.log_p, *const q = row.q,
                     *const log_q = row.log_q;
  const float rest = 1.0f - beta;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.vocab; ++i) {
    const float m = beta * p[i] + rest * q[i];
    const float log_m = fast_log(m > 1e-37f ? m : 1e-37f);
    const float from_q = rest * q[i] * (log_q[i] - log_m);
    gradient[i] = q[i] > 0.0f ? from_q : 0.0f;
    const float from_p = p[i] > 0.0f ? beta * p[i] * (log_p[i] - log_m) : 0.0f;
    sum += static_cast<double>(from_p + gradient[i]);
  }
  return sum;
}

class Jsd : public DistributionLoss {
 public:
  std::string_view name() const override { return "jsd"; }
  std::string_view summary() const override {
    return "beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q";
  }
  bool needs_teacher() const override { return true; }
  bool weighs_unlikely() const override { return true; }
  std::vector<LossParameter> parameters() override { return {{"beta", &beta_, 1e-6, 1 - 1e-6}}; }
  double row(const LossRow& row, float* gradient) const override {
    return jsd(row, static_cast<float>(beta_), gradient);
  }

 private:
  double beta_ = 0.5;  // The teacher's share of the mixture.
};

}  // namespace

std::unique_ptr<Loss> loss_jsd() { return std::make_unique<Jsd>(); }

}  // namespace slmc
