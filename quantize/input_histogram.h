// How large a layer's inputs are, as counts over magnitudes: what observers decide a fixed scale
// from.
#pragma once

#include <cstdint>
#include <vector>

namespace slmc {

/// Counts |x| in kBins bins of one width, a power of two that doubles when a larger value comes; so
/// the counts depend neither on the order of the values nor on how they are cut.
class InputHistogram {
 public:
  static constexpr int64_t kBins = 4096;

  /// All finite.
  void add(const float* x, int64_t count);
  void add(const InputHistogram& other);

  uint64_t count() const { return count_; }
  float peak() const { return peak_; }                         ///< The largest |x|, exactly.
  double width() const { return width_; }                      ///< Bin i holds [i, i + 1) widths.
  const std::vector<uint64_t>& bins() const { return bins_; }  ///< Empty while nothing was added.

 private:
  void widen(double least);

  double width_ = 0;
  float peak_ = 0;
  uint64_t count_ = 0;
  std::vector<uint64_t> bins_;
};

}  // namespace slmc
