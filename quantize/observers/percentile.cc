// The magnitude that 99.99% of the inputs do not exceed.
#include <algorithm>
#include <cmath>

#include "quantize/observer.h"

namespace slmc {
namespace {

constexpr double kShare = 0.9999;

double threshold(const InputHistogram& inputs) {
  const auto wanted =
      static_cast<uint64_t>(std::ceil(kShare * static_cast<double>(inputs.count())));
  uint64_t binned = 0;
  for (const uint64_t bin : inputs.bins()) binned += bin;
  uint64_t below = inputs.count() - binned;  // Zeros that came before anything else.
  for (size_t i = 0; i < inputs.bins().size(); ++i) {
    below += inputs.bins()[i];
    if (below >= wanted)
      return std::min(static_cast<double>(i + 1) * inputs.width(),
                      static_cast<double>(inputs.peak()));
  }
  return static_cast<double>(inputs.peak());
}

}  // namespace

const Observer& observer_percentile();
const Observer& observer_percentile() {
  static const Observer observer = {
      "percentile", "the magnitude that 99.99% of the inputs do not exceed", &threshold};
  return observer;
}

}  // namespace slmc
