#include "compress/runtime/rotary.h"

#include <bit>

namespace slmc {
namespace {

// pi/2 in three parts; the first two have 33 bits, so their products with a quadrant number below
// 2^20 are exact.
constexpr double kHigh = 0x1.921fb54400000p+0, kMiddle = 0x1.0b4611a600000p-34,
                 kLow = 0x1.3198a2e037073p-69;
constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52

/// Taylor series on |r| <= pi/4: the first term left out is below 2e-17 relative.
double sine_near_zero(double r) {
  const double z = r * r;
  double p = -1.0 / 121645100408832000.0;  // 1/19!
  for (const double c :
       {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
        1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0}) {
    p = p * z + c;
  }
  return r + r * z * p;
}

double cosine_near_zero(double r) {
  const double z = r * r;
  double p = 1.0 / 2432902008176640000.0;  // 1/20!
  for (const double c :
       {-1.0 / 6402373705728000.0, 1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0,
        -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5}) {
    p = p * z + c;
  }
  return 1.0 + z * p;
}

}  // namespace

void sine_cosine(double x, double* sine, double* cosine) {
  const double shifted = x * 0x1.45f306dc9c883p-1 + kRounder;
  const double n = shifted - kRounder;
  const double r = ((x - n * kHigh) - n * kMiddle) - n * kLow;
  const double s = sine_near_zero(r), c = cosine_near_zero(r);
  switch (std::bit_cast<uint64_t>(shifted) & 3u) {
    case 0:
      *sine = s, *cosine = c;
      break;
    case 1:
      *sine = c, *cosine = -s;
      break;
    case 2:
      *sine = -s, *cosine = -c;
      break;
    default:
      *sine = -c, *cosine = s;
      break;
  }
}

RotaryTable::RotaryTable(const Rope& rope, int64_t length)
    : inverse_(rope_inverse_frequencies(rope, length)),
      factor_(static_cast<float>(rope.attention_factor)) {}

void RotaryTable::extend(int64_t length) {
  const int64_t half = static_cast<int64_t>(inverse_.size());
  const int64_t have = half == 0 ? length : static_cast<int64_t>(sine_.size()) / half;
  for (int64_t position = have; position < length; ++position) {
    for (const float frequency : inverse_) {
      const float angle = static_cast<float>(position) * frequency;
      double sine = 0, cosine = 0;
      sine_cosine(static_cast<double>(angle), &sine, &cosine);
      sine_.push_back(static_cast<float>(sine) * factor_);
      cosine_.push_back(static_cast<float>(cosine) * factor_);
    }
  }
}

void RotaryTable::rotate(float* x, int64_t heads, int64_t head_dim, int64_t position) const {
  const int64_t half = static_cast<int64_t>(inverse_.size());
  const float* c = cosine_.data() + position * half;
  const float* s = sine_.data() + position * half;
  for (int64_t h = 0; h < heads; ++h, x += head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * c[i] - b * s[i];
      x[i + half] = b * c[i] + a * s[i];
    }
  }
}

}  // namespace slmc
