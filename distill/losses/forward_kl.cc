// KL(p || q) = sum p (log p - log q), the loss of Hinton et al. 2015. dL/d(log q) = -p.
#include "distill/loss.h"

namespace slmc {
namespace {

class ForwardKl : public DistributionLoss {
 public:
  std::string_view name() const override { return "forward_kl"; }
  std::string_view summary() const override {
    return "KL(teacher || student): the student covers all that the teacher does";
  }
  bool needs_teacher() const override { return true; }
  double row(const LossRow& row, float* gradient) const override {
    double sum = 0.0;
    for (int64_t i = 0; i < row.vocab; ++i) {
      sum += static_cast<double>(row.p[i]) * static_cast<double>(row.log_p[i] - row.log_q[i]);
      gradient[i] = -row.p[i];
    }
    return sum;
  }
};

}  // namespace

std::unique_ptr<Loss> loss_forward_kl() { return std::make_unique<ForwardKl>(); }

}  // namespace slmc
