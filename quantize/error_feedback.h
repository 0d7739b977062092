// The factor that error feedback needs: with H the second moment of a layer's inputs, damped,
//     H = (I + U) D (I + U)^T,  U strictly upper triangular, D diagonal,
// the error of rounding W to Q is sum over columns j of D[j] * (t[j] - q[j])^2, where
//     t[j] = w[j] + sum over i < j of (w[i] - q[i]) * U[i][j]
// is what column j should be given the columns before it. Rounding t[j] is GPTQ (Frantar et al.
// 2022, algorithm 1, whose Cholesky factor of the inverse gives the same t; Chee et al. 2023,
// theorem 6, shows the two to be one), without ever inverting H.
#pragma once

#include <cstdint>
#include <vector>

namespace slmc {

/// `square` [n][n] as panels of 16 columns, [ceil(n / 16)][n][16], zeros behind the last column:
/// what a product by columns reads in order.
std::vector<float> column_panels(const std::vector<float>& square, int64_t n);

class ErrorFeedback {
 public:
  struct Options {
    double damping = 0.01;       ///< Added to H's diagonal, times its mean.
    bool by_activation = false;  ///< Columns in order of falling H[j][j].
  };
  /// `hessian` [n][n], symmetric. Columns with H[j][j] = 0 are dead: no input ever reached them, so
  /// their codes are free and they disturb nothing. Where a pivot is not positive the damping is
  /// raised tenfold until all are. Throws Error(kBadInput) if the trace is zero or not finite.
  static ErrorFeedback factor(const std::vector<float>& hessian, int64_t n, const Options& options);

  int64_t size() const { return n_; }
  double damping() const { return damping_; }  ///< What was added to the diagonal, over its mean.
  const std::vector<int64_t>& dead() const { return dead_; }
  /// Place k in the order of rounding is column order()[k]. U and D below are in that order.
  const std::vector<int64_t>& order() const { return order_; }
  bool natural() const { return natural_; }
  const std::vector<float>& pivots() const { return pivots_; }  ///< D, [n].
  /// U as panels of 16 columns: U[i][16p + lane] is panel(p)[16 i + lane].
  const float* panel(int64_t p) const { return panels_.data() + p * n_ * 16; }
  /// `rows` [count][n], by column, become rows (H + damping)^-1.
  void solve(float* rows, int64_t count) const;
  int64_t panels() const { return (n_ + 15) / 16; }
  uint64_t bytes() const { return panels_.size() * sizeof(float); }

 private:
  int64_t n_ = 0;
  double damping_ = 0;
  bool natural_ = true;
  std::vector<int64_t> order_, dead_;
  std::vector<float> pivots_, panels_;
};

}  // namespace slmc
