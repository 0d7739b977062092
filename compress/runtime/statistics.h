// Means, spreads and intervals of measured figures. All sums run in index order in double, so a
// figure has the same bits on every machine and for any number of threads.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/json.h"

namespace slmc {

/// exp and log in double by our own polynomials: relative error below 1e-15, the same bits on every
/// machine (libm differs between processors). `stable_exp` takes x as no less than -700 and no more
/// than 709.
inline double stable_exp(double x) {
  // Cody and Waite: x = k*ln2 + r with |r| <= ln2/2, then Taylor to r^13 (next term below 4e-18).
  constexpr double kMagic = 0x1.8p52;
  constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const double clamped = x < -700.0 ? -700.0 : x > 709.0 ? 709.0 : x;
  const double shifted = clamped * 0x1.71547652b82fep0 + kMagic;
  const double k = shifted - kMagic;
  const double r = (clamped - k * kLn2High) - k * kLn2Low;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // The low bits of `shifted` hold k; adding k to the exponent field multiplies by 2^k.
  return std::bit_cast<double>(std::bit_cast<uint64_t>(p) +
                               (std::bit_cast<uint64_t>(shifted) << 52));
}
/// x > 0 and normal, or infinity or NaN, which stay.
double stable_log(double x);

double mean(std::span<const double> values);
/// Standard error of the mean of independent values, s / sqrt(n) with n - 1 in s; 0 for fewer than
/// two.
double standard_error(std::span<const double> values);
/// Standard error of the mean when values of one cluster are dependent: sqrt(c/(c-1) * sum_c (S_c -
/// n_c * mean)^2) / n, S_c and n_c the sum and count of cluster c. `cluster` [n] holds ascending
/// numbers. 0 for fewer than two clusters.
double cluster_standard_error(std::span<const double> values, std::span<const int32_t> cluster);
/// Linear interpolation between order statistics (numpy's default), q in [0, 1]; 0 for no values.
double quantile(std::vector<double> values, double q);

/// Ends of an interval.
struct Interval {
  double low = 0, high = 0;
};
/// 95% score interval of a proportion (Wilson 1927). [0, 1] for n = 0.
Interval wilson_interval(int64_t successes, int64_t n);
/// 95% percentile bootstrap: `statistic` is given the `n` indices of each of `resamples` draws with
/// replacement.
Interval bootstrap_interval(int64_t n, uint64_t seed, int resamples,
                            const std::function<double(std::span<const int64_t>)>& statistic);

/// Proportion with its Wilson interval, as "<name>", "<name>_low", "<name>_high".
void put_proportion(Json& json, const std::string& name, int64_t successes, int64_t n);

}  // namespace slmc
