#include "quantize/input_histogram.h"

#include <algorithm>
#include <cmath>

namespace slmc {
namespace {

/// The smallest power of two of which kBins reach beyond `peak`.
double width_for(double peak) {
  int exponent = 0;
  std::frexp(peak / static_cast<double>(InputHistogram::kBins), &exponent);
  return std::ldexp(1.0, exponent);
}

}  // namespace

void InputHistogram::widen(double least) {
  if (bins_.empty()) {
    bins_.assign(kBins, 0);
    width_ = least;
  }
  for (; width_ < least; width_ *= 2) {
    for (size_t i = 0; i < bins_.size() / 2; ++i) bins_[i] = bins_[2 * i] + bins_[2 * i + 1];
    std::fill(bins_.begin() + kBins / 2, bins_.end(), 0);
  }
}

void InputHistogram::add(const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) peak_ = std::max(peak_, std::fabs(x[i]));
  count_ += static_cast<uint64_t>(count);
  if (!(peak_ > 0)) return;  // Zeros alone need no bins.
  widen(width_for(static_cast<double>(peak_)));
  const double inverse = 1.0 / width_;
  for (int64_t i = 0; i < count; ++i)
    ++bins_[static_cast<size_t>(std::fabs(static_cast<double>(x[i])) * inverse)];
}

void InputHistogram::add(const InputHistogram& other) {
  count_ += other.count_;
  peak_ = std::max(peak_, other.peak_);
  if (other.bins_.empty()) return;
  widen(other.width_);
  const auto shrink = static_cast<size_t>(width_ / other.width_);
  for (size_t i = 0; i < other.bins_.size(); ++i) bins_[i / shrink] += other.bins_[i];
}

}  // namespace slmc
