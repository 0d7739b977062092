#include "compress/runtime/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "compress/core/random.h"

namespace slmc {

double stable_log(double x) {
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m-1)/(m+1)), whose argument is at
  // most 0.172.
  if (!(x <= 0x1.fffffffffffffp1023)) return x;  // NaN and infinity stay themselves.
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>((bits >> 52) & 0x7ff) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double series = 0.0;
  for (int n = 23; n >= 3; n -= 2) series = (series + 1.0 / n) * square;
  return exponent * 0x1.62e42fefa39efp-1 + 2.0 * (s + s * series);
}

double mean(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0.0 : sum / static_cast<double>(values.size());
}

double standard_error(std::span<const double> values) {
  if (values.size() < 2) return 0.0;
  const double centre = mean(values), n = static_cast<double>(values.size());
  double squares = 0;
  for (double value : values) squares += (value - centre) * (value - centre);
  return std::sqrt(squares / (n - 1.0) / n);
}

double cluster_standard_error(std::span<const double> values, std::span<const int32_t> cluster) {
  const double centre = mean(values);
  double squares = 0;
  int64_t clusters = 0;
  for (size_t begin = 0; begin < values.size(); ++clusters) {
    double deviation = 0;
    size_t end = begin;
    for (; end < values.size() && cluster[end] == cluster[begin]; ++end)
      deviation += values[end] - centre;
    squares += deviation * deviation;
    begin = end;
  }
  if (clusters < 2) return 0.0;
  const double c = static_cast<double>(clusters);
  return std::sqrt(squares * c / (c - 1.0)) / static_cast<double>(values.size());
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0.0;
  const double position = q * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(position);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(below),
                   values.end());
  const double low = values[below];
  if (below + 1 == values.size()) return low;
  const double high =
      *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(below) + 1, values.end());
  return low + (high - low) * (position - static_cast<double>(below));
}

Interval wilson_interval(int64_t successes, int64_t n) {
  if (n <= 0) return {0.0, 1.0};
  constexpr double z = 1.959963984540054;  // 97.5% point of the normal distribution.
  const double count = static_cast<double>(n), p = static_cast<double>(successes) / count;
  const double scale = 1.0 / (1.0 + z * z / count);
  const double centre = (p + z * z / (2.0 * count)) * scale;
  const double half = z * scale * std::sqrt(p * (1.0 - p) / count + z * z / (4.0 * count * count));
  return {successes == 0 ? 0.0 : std::max(0.0, centre - half),
          successes == n ? 1.0 : std::min(1.0, centre + half)};
}

Interval bootstrap_interval(int64_t n, uint64_t seed, int resamples,
                            const std::function<double(std::span<const int64_t>)>& statistic) {
  if (n <= 0) return {0.0, 1.0};
  Random random(seed);
  std::vector<int64_t> draw(static_cast<size_t>(n));
  std::vector<double> results;
  results.reserve(static_cast<size_t>(resamples));
  for (int i = 0; i < resamples; ++i) {
    for (int64_t& index : draw)
      index = static_cast<int64_t>(random.below(static_cast<uint64_t>(n)));
    results.push_back(statistic(draw));
  }
  return {quantile(results, 0.025), quantile(results, 0.975)};
}

void put_proportion(Json& json, const std::string& name, int64_t successes, int64_t n) {
  const Interval interval = wilson_interval(successes, n);
  json[name] = n > 0 ? static_cast<double>(successes) / static_cast<double>(n) : 0.0;
  json[name + "_low"] = interval.low;
  json[name + "_high"] = interval.high;
}

}  // namespace slmc
