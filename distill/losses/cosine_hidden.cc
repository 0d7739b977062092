// 1 - cosine of hidden states, as in DistilBERT (Sanh et al. 2019, section 2). With s the student's
// and t the teacher's, dL/ds = (s cos / |s| - t / |t|) / |s|.
#include <cmath>

#include "distill/loss.h"

namespace slmc {
namespace {

class CosineHidden : public HiddenLoss {
 public:
  std::string_view name() const override { return "cosine_hidden"; }
  std::string_view summary() const override { return "1 - cosine of hidden states"; }
  double row(const HiddenRow& row, float* gradient) const override {
    double dot = 0.0, student = 0.0, teacher = 0.0;
    for (int64_t i = 0; i < row.width; ++i) {
      const auto s = static_cast<double>(row.student[i]), t = static_cast<double>(row.teacher[i]);
      dot += s * t;
      student += s * s;
      teacher += t * t;
    }
    // States that vanish have no direction; the bound keeps their gradient finite.
    student = std::sqrt(student) + 1e-8;
    teacher = std::sqrt(teacher) + 1e-8;
    const double cosine = dot / (student * teacher);
    const auto along = static_cast<float>(cosine / (student * student)),
               towards = static_cast<float>(1.0 / (student * teacher));
    for (int64_t i = 0; i < row.width; ++i)
      gradient[i] = along * row.student[i] - towards * row.teacher[i];
    return 1.0 - cosine;
  }
};

}  // namespace

std::unique_ptr<Loss> loss_cosine_hidden() { return std::make_unique<CosineHidden>(); }

}  // namespace slmc
