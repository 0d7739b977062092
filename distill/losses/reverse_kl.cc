// KL(q || p) = sum q (log q - log p), as in MiniLLM (Gu et al. 2023). q dL/dq = q log(q/p), a
// constant times q apart, which the softmax's gradient takes out.
#include "distill/loss.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES double reverse_kl(const LossRow& row, float* gradient) {
  const float *const log_p = row.log_p, *const q = row.q, *const log_q = row.log_q;
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < row.vocab; ++i) {
    gradient[i] = q[i] * (log_q[i] - log_p[i]);
    sum += static_cast<double>(gradient[i]);
  }
  return sum;
}

class ReverseKl : public DistributionLoss {
 public:
  std::string_view name() const override { return "reverse_kl"; }
  std::string_view summary() const override {
    return "KL(student || teacher): the student says only what the teacher would";
  }
  bool needs_teacher() const override { return true; }
  bool weighs_unlikely() const override { return true; }
  double row(const LossRow& row, float* gradient) const override {
    return reverse_kl(row, gradient);
  }
};

}  // namespace

std::unique_ptr<Loss> loss_reverse_kl() { return std::make_unique<ReverseKl>(); }

}  // namespace slmc
