#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "compress/core/random.h"
#include "compress/runtime/statistics.h"

namespace slmc {
namespace {

TEST(Statistics, ExpIsWithinTheStatedErrorOfLibm) {
  double worst = 0;
  for (double x = -699.0; x < 700.0; x += 0.0137)
    worst = std::max(worst, std::abs(stable_exp(x) / std::exp(x) - 1.0));
  EXPECT_LT(worst, 1e-15);
  EXPECT_EQ(stable_exp(0.0), 1.0);
  EXPECT_EQ(stable_exp(-5000.0), stable_exp(-700.0));
  EXPECT_TRUE(std::isnan(stable_exp(std::nan(""))));
}

TEST(Statistics, LogIsWithinTheStatedErrorOfLibm) {
  double worst = 0;
  for (double x = 1e-12; x < 1e12; x *= 1.00731) {
    const double exact = std::log(x);
    worst = std::max(worst, std::abs(stable_log(x) - exact) / std::max(1e-3, std::abs(exact)));
  }
  EXPECT_LT(worst, 1e-15);
  EXPECT_EQ(stable_log(1.0), 0.0);
  EXPECT_TRUE(std::isnan(stable_log(std::nan(""))));
  EXPECT_TRUE(std::isinf(stable_log(INFINITY)));
}

TEST(Statistics, StandardErrorOfAMean) {
  const std::vector<double> values = {1, 2, 3, 4};  // Variance 5/3, over 4 values.
  EXPECT_DOUBLE_EQ(mean(values), 2.5);
  EXPECT_DOUBLE_EQ(standard_error(values), std::sqrt(5.0 / 3.0 / 4.0));
  EXPECT_EQ(standard_error(std::vector<double>{7}), 0.0);
}

TEST(Statistics, ClusterErrorOfEqualClustersIsThatOfTheirMeans) {
  // Three clusters of two; means 1, 2, 6 about 3 have variance 7, so the error of their mean is
  // sqrt(7/3).
  const std::vector<double> values = {0, 2, 1, 3, 5, 7};
  const std::vector<int32_t> cluster = {4, 4, 5, 5, 9, 9};
  EXPECT_NEAR(cluster_standard_error(values, cluster), std::sqrt(7.0 / 3.0), 1e-14);
  EXPECT_EQ(cluster_standard_error(values, std::vector<int32_t>(6, 1)), 0.0);
}

TEST(Statistics, QuantilesInterpolateLinearly) {
  const std::vector<double> values = {40, 10, 30, 20};  // numpy.quantile([10, 20, 30, 40], q)
  EXPECT_DOUBLE_EQ(quantile(values, 0.0), 10);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 25);
  EXPECT_DOUBLE_EQ(quantile(values, 0.99), 39.7);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 40);
}

// Bounds as in Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20,
// 1/29.
TEST(Statistics, WilsonIntervalsOfTheLiterature) {
  const struct {
    int64_t successes, n;
    double low, high;
  } cases[] = {{81, 263, 0.2553, 0.3662},
               {15, 148, 0.0624, 0.1605},
               {0, 20, 0.0, 0.1611},
               {1, 29, 0.0061, 0.1718}};
  for (const auto& known : cases) {
    const Interval interval = wilson_interval(known.successes, known.n);
    EXPECT_NEAR(interval.low, known.low, 5e-5) << known.n;
    EXPECT_NEAR(interval.high, known.high, 5e-5) << known.n;
  }
  EXPECT_EQ(wilson_interval(20, 20).high, 1.0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1.0);
}

double mean_of_draw(std::span<const int64_t> draw) {
  return static_cast<double>(std::accumulate(draw.begin(), draw.end(), int64_t{0})) /
         static_cast<double>(draw.size());
}

TEST(Statistics, BootstrapFollowsItsSeedAlone) {
  const Interval a = bootstrap_interval(50, 7, 500, mean_of_draw),
                 b = bootstrap_interval(50, 7, 500, mean_of_draw);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_NE(bootstrap_interval(50, 8, 500, mean_of_draw).low, a.low);
}

TEST(Statistics, BootstrapOfAMeanIsNearTheNormalInterval) {
  // 0..199: mean 99.5, deviation sqrt((200^2 - 1) / 12) = 57.7, so 1.96 * 57.7 / sqrt(200) = 8.0 on
  // either side.
  const Interval interval = bootstrap_interval(200, 1, 4000, mean_of_draw);
  EXPECT_NEAR(interval.low, 91.5, 0.6);
  EXPECT_NEAR(interval.high, 107.5, 0.6);
}

}  // namespace
}  // namespace slmc
