// -log q[label]: learning the text alone.
#include <algorithm>

#include "distill/loss.h"

namespace slmc {
namespace {

class CrossEntropy : public DistributionLoss {
 public:
  std::string_view name() const override { return "cross_entropy"; }
  std::string_view summary() const override { return "the text's next token, without a teacher"; }
  bool needs_teacher() const override { return false; }
  double row(const LossRow& row, float* gradient) const override {
    std::fill(gradient, gradient + row.vocab, 0.0f);
    gradient[row.label] = -1.0f;
    return -static_cast<double>(row.log_q[row.label]);
  }
};

}  // namespace

std::unique_ptr<Loss> loss_cross_entropy() { return std::make_unique<CrossEntropy>(); }

}  // namespace slmc
