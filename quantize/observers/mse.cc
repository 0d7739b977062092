// The magnitude for which rounding and cutting off together lose least, as squares.
#include <algorithm>
#include <cmath>

#include "quantize/observer.h"

namespace slmc {
namespace {

constexpr int kTried = 128;  // Thresholds: the peak times 1/kTried, 2/kTried, ... 1.

double loss_of(const InputHistogram& inputs, double threshold) {
  const double scale = threshold / kInputSteps;
  double sum = 0;
  for (size_t i = 0; i < inputs.bins().size(); ++i) {
    if (inputs.bins()[i] == 0) continue;
    const double x = (static_cast<double>(i) + 0.5) * inputs.width();
    // Positive codes reach 127, negative ones 128; half of either is assumed.
    const double lost = x - std::min(std::nearbyint(x / scale), kInputSteps) * scale;
    sum += static_cast<double>(inputs.bins()[i]) * lost * lost;
  }
  return sum;
}

double threshold(const InputHistogram& inputs) {
  const auto peak = static_cast<double>(inputs.peak());
  double best = peak, least = loss_of(inputs, peak);
  for (int i = kTried - 1; i > 0; --i) {
    const double tried = peak * i / kTried, loss = loss_of(inputs, tried);
    if (loss < least) least = loss, best = tried;
  }
  return best;
}

}  // namespace

const Observer& observer_mse();
const Observer& observer_mse() {
  static const Observer observer = {"mse", "the magnitude for which squared errors are least",
                                    &threshold};
  return observer;
}

}  // namespace slmc
