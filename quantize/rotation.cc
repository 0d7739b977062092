#include "quantize/rotation.h"

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"

namespace slmc {
namespace {

/// Gram and Schmidt's process, twice, on random rows.
std::vector<double> random_orthogonal(int64_t n, Random& random) {
  std::vector<double> q(static_cast<size_t>(n * n));
  for (int64_t r = 0; r < n; ++r) {
    double* row = q.data() + r * n;
    for (int64_t i = 0; i < n; ++i) row[i] = random.normal();
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t other = 0; other < r; ++other) {
        const double* before = q.data() + other * n;
        double along = 0;
        for (int64_t i = 0; i < n; ++i) along += row[i] * before[i];
        for (int64_t i = 0; i < n; ++i) row[i] -= along * before[i];
      }
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += row[i] * row[i];
      for (int64_t i = 0; i < n; ++i) row[i] /= std::sqrt(squares);
    }
  }
  return q;
}

}  // namespace

Rotation::Rotation(int64_t n, uint64_t seed) : n_(n), odd_(n) {
  SLMC_CHECK(n > 0, "a rotation of no channels");
  while (odd_ % 2 == 0) odd_ /= 2;
  Random random(seed);
  const double scale = 1 / std::sqrt(static_cast<double>(n / odd_));
  for (int64_t i = 0; i < n; ++i) signs_.push_back(random.next() >> 63 != 0 ? scale : -scale);
  mixer_ = random_orthogonal(odd_, random);
}

// Channel i is (i / odd, i % odd): the mixer turns the second index, Hadamard's matrix the first.
void Rotation::apply(double* x) const {
  for (int64_t i = 0; i < n_; ++i) x[i] *= signs_[static_cast<size_t>(i)];
  if (odd_ > 1) {
    std::vector<double> mixed(static_cast<size_t>(odd_));
    for (double* part = x; part < x + n_; part += odd_) {
      for (int64_t r = 0; r < odd_; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < odd_; ++i)
          sum += mixer_[static_cast<size_t>(r * odd_ + i)] * part[i];
        mixed[static_cast<size_t>(r)] = sum;
      }
      for (int64_t i = 0; i < odd_; ++i) part[i] = mixed[static_cast<size_t>(i)];
    }
  }
  for (int64_t half = odd_; half < n_; half *= 2) {
    for (int64_t first = 0; first < n_; first += 2 * half) {
      for (int64_t i = first; i < first + half; ++i) {
        const double a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
}

void Rotation::apply_rows(float* w, int64_t rows) const {
  parallel_ranges(rows, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> x(static_cast<size_t>(n_));
    for (int64_t r = begin; r < end; ++r) {
      float* row = w + r * n_;
      for (int64_t i = 0; i < n_; ++i) x[static_cast<size_t>(i)] = static_cast<double>(row[i]);
      apply(x.data());
      for (int64_t i = 0; i < n_; ++i) row[i] = static_cast<float>(x[static_cast<size_t>(i)]);
    }
  });
}

void Rotation::apply_columns(float* w, int64_t columns) const {
  constexpr int64_t kTogether = 16;  // Columns read and written beside each other.
  parallel_ranges(columns, kTogether, [&](int64_t begin, int64_t end) {
    std::vector<double> x(static_cast<size_t>(n_ * (end - begin)));
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = begin; c < end; ++c)
        x[static_cast<size_t>((c - begin) * n_ + i)] = static_cast<double>(w[i * columns + c]);
    }
    for (int64_t c = begin; c < end; ++c) apply(x.data() + (c - begin) * n_);
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t c = begin; c < end; ++c)
        w[i * columns + c] = static_cast<float>(x[static_cast<size_t>((c - begin) * n_ + i)]);
    }
  });
}

}  // namespace slmc
