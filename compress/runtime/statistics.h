// Means, spreads and intervals of measured figures. All sums run in index order in double, so a figure has the same bits on every
// machine and for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/json.h"

namespace slmc {

/// exp and log in double by our own polynomials: relative error below 1e-15, the same bits on every machine (libm differs between
/// processors). `stable_exp` takes x as no less than -700 and no more than 709.
double stable_exp(double x);
/// x > 0 and normal, or infinity or NaN, which stay.
double stable_log(double x);

double mean(std::span<const double> values);
/// Standard error of the mean of independent values, s / sqrt(n) with n - 1 in s; 0 for fewer than two.
double standard_error(std::span<const double> values);
/// Standard error of the mean when values of one cluster are dependent: sqrt(c/(c-1) * sum_c (S_c - n_c * mean)^2) / n, S_c and n_c the
/// sum and count of cluster c. `cluster` [n] holds ascending numbers. 0 for fewer than two clusters.
double cluster_standard_error(std::span<const double> values, std::span<const int32_t> cluster);
/// Linear interpolation between order statistics (numpy's default), q in [0, 1]; 0 for no values.
double quantile(std::vector<double> values, double q);

/// Ends of an interval.
struct Interval {
  double low = 0, high = 0;
};
/// 95% score interval of a proportion (Wilson 1927). [0, 1] for n = 0.
Interval wilson_interval(int64_t successes, int64_t n);
/// 95% percentile bootstrap: `statistic` is given the `n` indices of each of `resamples` draws with replacement.
Interval bootstrap_interval(int64_t n, uint64_t seed, int resamples, const std::function<double(std::span<const int64_t>)>& statistic);

/// Proportion with its Wilson interval, as "<name>", "<name>_low", "<name>_high".
void put_proportion(Json& json, const std::string& name, int64_t successes, int64_t n);

}  // namespace slmc
