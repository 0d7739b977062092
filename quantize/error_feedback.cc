#include "quantize/error_feedback.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/isa.h"

namespace slmc {
namespace {

using kernels::kLanes;

constexpr int64_t kBlock = 64;  // Columns eliminated at once.

/// A = R R^T with R upper triangular, in place, from the last column to the first. Only the upper
/// half of `a` [n][stride] is read and written (and what lies in the panels of its diagonal).
class UpperCholesky {
 public:
  UpperCholesky(float* a, int64_t n, int64_t stride) : a_(a), n_(n), stride_(stride) {}

  /// False if a pivot is not positive.
  bool run() {
    for (int64_t end = n_; end > 0;) {
      const int64_t begin = (end - 1) / kBlock * kBlock;
      if (!diagonal(begin, end)) return false;
      solve(begin, end);
      update(begin, end);
      end = begin;
    }
    return true;
  }

 private:
  float& at(int64_t i, int64_t j) { return a_[i * stride_ + j]; }

  /// The block on the diagonal, in double.
  bool diagonal(int64_t begin, int64_t end) {
    const int64_t size = end - begin;
    std::vector<double> block(static_cast<size_t>(size * size));
    const auto b = [&](int64_t i, int64_t j) -> double& {
      return block[static_cast<size_t>(i * size + j)];
    };
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = i; j < size; ++j) b(i, j) = at(begin + i, begin + j);
    }
    for (int64_t k = size - 1; k >= 0; --k) {
      for (int64_t j = k + 1; j < size; ++j) b(k, k) -= b(k, j) * b(k, j);
      if (!(b(k, k) > 0) || !std::isfinite(b(k, k))) return false;
      b(k, k) = std::sqrt(b(k, k));
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = k + 1; j < size; ++j) b(i, k) -= b(i, j) * b(k, j);
        b(i, k) /= b(k, k);
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = i; j < size; ++j) at(begin + i, begin + j) = static_cast<float>(b(i, j));
    }
    return true;
  }

  /// Rows above the block: R[i][J] R_JJ^T = A[i][J].
  void solve(int64_t begin, int64_t end) {
    parallel_ranges(begin, 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        for (int64_t k = end - 1; k >= begin; --k) {
          double value = at(i, k);
          for (int64_t j = k + 1; j < end; ++j)
            value -= static_cast<double>(at(i, j)) * static_cast<double>(at(k, j));
          at(i, k) = static_cast<float>(value / static_cast<double>(at(k, k)));
        }
      }
    });
  }

  /// What is left: A[i][j] -= sum over k in the block of R[i][k] R[j][k], for i <= j < begin.
  void update(int64_t begin, int64_t end) {
    const int64_t depth = end - begin, panels = begin / kLanes;  // begin is a multiple of kBlock.
    if (begin == 0) return;
    panels_.resize(static_cast<size_t>(begin * depth));
    negative_.resize(static_cast<size_t>(begin * depth));
    parallel_for(panels, [&](int64_t p) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t j = p * kLanes + lane;
        for (int64_t k = 0; k < depth; ++k) {
          const float value = at(j, begin + k);
          panels_[static_cast<size_t>((p * depth + k) * kLanes + lane)] = value;
          negative_[static_cast<size_t>(j * depth + k)] = -value;
        }
      }
    });
    parallel_for(begin / kBlock, [&](int64_t block) {
      const int64_t row = block * kBlock, first = row / kLanes;
      kernel_set().tile({panels_.data() + first * depth * kLanes, kLanes, depth * kLanes,
                         panels - first, depth, negative_.data() + row * depth, depth, kBlock,
                         a_ + row * stride_ + row, stride_, true});
    });
  }

  float* a_;
  int64_t n_, stride_;
  std::vector<float> panels_, negative_;
};

std::vector<int64_t> falling(const std::vector<float>& hessian, int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return hessian[static_cast<size_t>(a * n + a)] > hessian[static_cast<size_t>(b * n + b)];
  });
  return order;
}

}  // namespace

std::vector<float> column_panels(const std::vector<float>& square, int64_t n) {
  const int64_t panels = (n + kLanes - 1) / kLanes;
  std::vector<float> packed(static_cast<size_t>(panels * n * kLanes));
  parallel_for(panels, [&](int64_t p) {
    const int64_t lanes = std::min(kLanes, n - p * kLanes);
    for (int64_t k = 0; k < n; ++k)
      std::copy_n(square.data() + k * n + p * kLanes, lanes, packed.data() + (p * n + k) * kLanes);
  });
  return packed;
}

ErrorFeedback ErrorFeedback::factor(const std::vector<float>& hessian, int64_t n,
                                    const Options& options) {
  SLMC_CHECK(static_cast<int64_t>(hessian.size()) == n * n, "the Hessian must be square");
  ErrorFeedback out;
  out.n_ = n;
  out.natural_ = !options.by_activation;
  out.order_.resize(static_cast<size_t>(n));
  std::iota(out.order_.begin(), out.order_.end(), 0);
  if (options.by_activation) out.order_ = falling(hessian, n);
  double trace = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float value = hessian[static_cast<size_t>(i * n + i)];
    trace += static_cast<double>(value);
    if (value == 0.0f) out.dead_.push_back(i);
  }
  if (!std::isfinite(trace) || trace <= 0)
    throw_bad_input(cat("calibration: the inputs' mean square is ", trace / static_cast<double>(n),
                        "; expected a positive, finite number; is the text more than one token?"));

  const int64_t stride = (n + kLanes - 1) / kLanes * kLanes;
  std::vector<float> a(static_cast<size_t>(n * stride));
  const double mean = trace / static_cast<double>(n);
  for (out.damping_ = options.damping;; out.damping_ = std::max(1e-6, out.damping_ * 10)) {
    const auto added = static_cast<float>(out.damping_ * mean);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t from = out.order_[static_cast<size_t>(i)] * n;
      for (int64_t j = i; j < n; ++j)
        a[static_cast<size_t>(i * stride + j)] =
            hessian[static_cast<size_t>(from + out.order_[static_cast<size_t>(j)])];
      a[static_cast<size_t>(i * stride + i)] += added;
    }
    if (UpperCholesky(a.data(), n, stride).run()) break;
    SLMC_CHECK(out.damping_ < 1e3, "a damped Hessian must be positive definite");
  }
  out.pivots_.resize(static_cast<size_t>(n));
  out.panels_.assign(static_cast<size_t>(stride * n), 0.0f);
  for (int64_t j = 0; j < n; ++j) {
    const float root = a[static_cast<size_t>(j * stride + j)];
    out.pivots_[static_cast<size_t>(j)] = root * root;
    float* panel = out.panels_.data() + j / kLanes * n * kLanes + j % kLanes;
    for (int64_t i = 0; i < j; ++i)
      panel[i * kLanes] = a[static_cast<size_t>(i * stride + j)] / root;
  }
  return out;
}

namespace {

constexpr int64_t kSolved = 2 * kLanes;  // Rows solved together.

/// Rows of t [places][width], side by side in memory.
class Columns {
 public:
  Columns(float* t, int64_t width) : t_(t), width_(width) {}
  float* at(int64_t k) const { return t_ + k * width_; }
  /// Place `to` -= factor * place `from`.
  void take(int64_t to, int64_t from, float factor) const {
    for (int64_t r = 0; r < width_; ++r) at(to)[r] -= factor * at(from)[r];
  }
  /// Places [begin, end), negated, as panels [width / kLanes][kLanes][kLanes]; zeros behind `end`.
  void negate(int64_t begin, int64_t end, float* panels) const {
    std::fill_n(panels, width_ * kLanes, 0.0f);
    for (int64_t k = begin; k < end; ++k) {
      for (int64_t r = 0; r < width_; ++r)
        panels[(r / kLanes * kLanes + k - begin) * kLanes + r % kLanes] = -at(k)[r];
    }
  }

 private:
  float* t_;
  int64_t width_;
};

}  // namespace

// With z (I + U) D (I + U)^T = t: first a (I + U)^T = t from the last place to the first, then
// b = a / D, then z (I + U) = b from the first to the last.
void ErrorFeedback::solve(float* rows, int64_t count) const {
  const int64_t stride = panels() * kLanes;
  std::vector<float> t(static_cast<size_t>(stride * kSolved)), z(t.size()), negative(t.size());
  for (int64_t first = 0; first < count; first += kSolved) {
    const int64_t size = std::min(kSolved, count - first);
    const int64_t width = (size + kLanes - 1) / kLanes * kLanes;
    const Columns columns(t.data(), width);
    for (int64_t k = 0; k < n_; ++k) {
      for (int64_t r = 0; r < width; ++r)
        columns.at(k)[r] =
            r < size ? rows[(first + r) * n_ + order_[static_cast<size_t>(k)]] : 0.0f;
    }
    // What a panel's places have found is taken from all places before them at once.
    for (int64_t p = panels() - 1; p >= 0; --p) {
      const int64_t begin = p * kLanes, end = std::min(n_, begin + kLanes);
      for (int64_t k = end - 1; k > begin; --k) {
        for (int64_t i = begin; i < k; ++i) columns.take(i, k, panel(p)[i * kLanes + k - begin]);
      }
      if (begin == 0) continue;
      columns.negate(begin, end, negative.data());
      kernel_set().tile({negative.data(), kLanes, kLanes * kLanes, width / kLanes, kLanes, panel(p),
                         kLanes, begin, t.data(), width, true});
    }
    // z and -z, [size][stride]. A panel takes from its places what all those before them came to.
    for (int64_t r = 0; r < size; ++r) {
      for (int64_t k = 0; k < n_; ++k)
        z[static_cast<size_t>(r * stride + k)] = columns.at(k)[r] / pivots_[static_cast<size_t>(k)];
    }
    for (int64_t p = 0; p < panels(); ++p) {
      const int64_t begin = p * kLanes, end = std::min(n_, begin + kLanes);
      if (begin > 0) {
        kernel_set().tile({panel(p), kLanes, n_ * kLanes, 1, begin, negative.data(), stride, size,
                           z.data() + begin, stride, true});
      }
      for (int64_t r = 0; r < size; ++r) {
        float* row = z.data() + r * stride;
        for (int64_t k = begin; k < end; ++k) {
          for (int64_t i = begin; i < k; ++i) row[k] -= row[i] * panel(p)[i * kLanes + k - begin];
          negative[static_cast<size_t>(r * stride + k)] = -row[k];
        }
      }
    }
    for (int64_t k = 0; k < n_; ++k) {
      for (int64_t r = 0; r < size; ++r)
        rows[(first + r) * n_ + order_[static_cast<size_t>(k)]] =
            z[static_cast<size_t>(r * stride + k)];
    }
  }
}

}  // namespace slmc
