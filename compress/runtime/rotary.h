// Rotary embedding: its angles' sines and cosines, and their application to heads.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/architecture.h"

namespace slmc {

/// Sine and cosine of x in double, |x| < 2^20: three-part reduction by pi/2, then Taylor
/// polynomials. Error below 2e-16 or so; the same bits on every machine, which libm's are not.
void sine_cosine(double x, double* sine, double* cosine);

/// Tables that grow with the sequence. The angle is position * inverse_frequency rounded to float,
/// as transformers has it.
class RotaryTable {
 public:
  /// `length`: what the sequence is declared to hold at most; it chooses longrope's factors.
  RotaryTable(const Rope& rope, int64_t length);
  /// Makes positions below `length` available.
  void extend(int64_t length);
  /// Rotates `heads` consecutive heads of `head_dim`, the pairs (i, i + dims/2) of each, for
  /// `position`.
  void rotate(float* x, int64_t heads, int64_t head_dim, int64_t position) const;

 private:
  std::vector<float> inverse_;
  float factor_;                      // Of sine and cosine.
  std::vector<float> cosine_, sine_;  // [position][dims/2]
};

}  // namespace slmc
