// Orthogonal matrices that mix all channels and are cheap to apply: a Hadamard matrix times random
// signs, and where the size is no power of two a random orthogonal matrix for the odd factor. A
// weight that is rotated has no outlying channels, which coarse grids like (QuaRot, Ashkboos et al.
// 2024).
#pragma once

#include <cstdint>
#include <vector>

namespace slmc {

class Rotation {
 public:
  /// Of `n` channels; the same for the same seed everywhere.
  Rotation(int64_t n, uint64_t seed);

  int64_t size() const { return n_; }
  /// x [n] becomes R x.
  void apply(double* x) const;
  /// Each of `rows` rows of n floats becomes R row; the product W R^T.
  void apply_rows(float* w, int64_t rows) const;
  /// Each column of w [n, columns] becomes R column; the product R W.
  void apply_columns(float* w, int64_t columns) const;

 private:
  int64_t n_, odd_ = 1;
  std::vector<double> signs_;  // [n]
  std::vector<double> mixer_;  // [odd][odd], orthogonal.
};

}  // namespace slmc
