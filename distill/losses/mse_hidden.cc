// Mean over the width of the squared difference of hidden states, as in TinyBERT (Jiao et al. 2020,
// equation 8), which compares them through a learned projection.
#include "distill/loss.h"

namespace slmc {
namespace {

class MseHidden : public HiddenLoss {
 public:
  std::string_view name() const override { return "mse_hidden"; }
  std::string_view summary() const override { return "mean square of hidden states' differences"; }
  double row(const HiddenRow& row, float* gradient) const override {
    const float factor = 2.0f / static_cast<float>(row.width);
    double sum = 0.0;
    for (int64_t i = 0; i < row.width; ++i) {
      const float difference = row.student[i] - row.teacher[i];
      gradient[i] = factor * difference;
      sum += static_cast<double>(difference) * static_cast<double>(difference);
    }
    return sum / static_cast<double>(row.width);
  }
};

}  // namespace

std::unique_ptr<Loss> loss_mse_hidden() { return std::make_unique<MseHidden>(); }

}  // namespace slmc
