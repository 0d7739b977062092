// The magnitude for which the distribution of the inputs, cut off there and rounded, diverges least
// from what it was (Kullback-Leibler), as TensorRT calibrates (Migacz 2017, "8-bit inference with
// TensorRT", entropy calibration).
#include <algorithm>
#include <cmath>
#include <vector>

#include "quantize/observer.h"

namespace slmc {
namespace {

constexpr size_t kLevels = 128;  // Magnitudes that 8 bits have.
constexpr size_t kStride = 16;   // Bins between the thresholds tried.

/// KL(P || Q): P the first `size` bins with what lies beyond added to the last, Q the same bins in
/// kLevels levels, each spread evenly over its bins that hold anything.
double divergence(const std::vector<uint64_t>& bins, size_t size, double total) {
  double beyond = 0, kept = 0, sum = 0;
  for (size_t i = size; i < bins.size(); ++i) beyond += static_cast<double>(bins[i]);
  kept = total - beyond;
  for (size_t level = 0; level < kLevels; ++level) {
    const size_t begin = level * size / kLevels, end = (level + 1) * size / kLevels;
    double mass = 0, held = 0;
    for (size_t i = begin; i < end; ++i) {
      mass += static_cast<double>(bins[i]);
      held += bins[i] > 0;
    }
    for (size_t i = begin; i < end; ++i) {
      double p = static_cast<double>(bins[i]);
      if (i + 1 == size) p += beyond;
      if (p == 0) continue;
      // A last bin that holds only what was cut off has no counterpart: as if one value were there.
      const double q = bins[i] > 0 ? mass / held : 1.0;
      sum += p / total * std::log((p / total) / (q / kept));
    }
  }
  return sum;
}

double threshold(const InputHistogram& inputs) {
  const std::vector<uint64_t>& bins = inputs.bins();
  const auto peak = static_cast<double>(inputs.peak());
  const auto used = static_cast<size_t>(peak / inputs.width()) + 1;
  double total = 0, least = -1;
  for (const uint64_t bin : bins) total += static_cast<double>(bin);
  size_t best = used;
  for (size_t size = kLevels; size <= used; size += kStride) {
    const double found = divergence(bins, size, total);
    if (!std::isfinite(found)) continue;
    if (least < 0 || found < least) least = found, best = size;
  }
  return std::min(peak, static_cast<double>(best) * inputs.width());
}

}  // namespace

const Observer& observer_entropy();
const Observer& observer_entropy() {
  static const Observer observer = {
      "entropy", "the magnitude for which the inputs' distribution diverges least (KL)",
      &threshold};
  return observer;
}

}  // namespace slmc
