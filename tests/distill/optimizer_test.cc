// AdamW against algorithm 2 of Loshchilov & Hutter 2019, in double.
#include "distill/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/core/random.h"

namespace slmc {
namespace {

TEST(AdamW, FollowsThePaperForSeveralSteps) {
  const AdamOptions options{
      .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .clip = 0};
  const int64_t n = 1000, decayed = 600;
  Random random(1);
  std::vector<float> w(n), m(n, 0.0f), v(n, 0.0f), g(n);
  for (float& x : w) x = static_cast<float>(random.normal());
  std::vector<double> rw(w.begin(), w.end()), rm(n, 0.0), rv(n, 0.0);
  for (int step = 1; step <= 5; ++step) {
    for (float& x : g) x = static_cast<float>(random.normal());
    const double rate = 0.01 * step;
    adamw_step(options, n, decayed, step, rate, 0.5, w.data(), m.data(), v.data(), g.data(),
               nullptr);
    for (size_t i = 0; i < rw.size(); ++i) {
      const double gradient = 0.5 * static_cast<double>(g[i]);
      rm[i] = 0.9 * rm[i] + 0.1 * gradient;
      rv[i] = 0.95 * rv[i] + 0.05 * gradient * gradient;
      if (static_cast<int64_t>(i) < decayed) rw[i] -= rate * 0.1 * rw[i];
      rw[i] -= rate * (rm[i] / (1 - std::pow(0.9, step))) /
               (std::sqrt(rv[i] / (1 - std::pow(0.95, step))) + 1e-8);
    }
  }
  for (size_t i = 0; i < rw.size(); ++i)
    EXPECT_NEAR(w[i], rw[i], 2e-6 * (1 + std::abs(rw[i]))) << i;
}

TEST(AdamW, MaskedWeightsStayZero) {
  std::vector<float> w{0, 1}, m(2, 0.0f), v(2, 0.0f), g{1, 1};
  const uint8_t mask[] = {0, 1};
  adamw_step({}, 2, 2, 1, 0.1, 1, w.data(), m.data(), v.data(), g.data(), mask);
  EXPECT_EQ(w[0], 0.0f);
  EXPECT_NE(w[1], 1.0f);
}

}  // namespace
}  // namespace slmc
