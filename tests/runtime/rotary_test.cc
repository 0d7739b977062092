#include "compress/runtime/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

namespace slmc {
namespace {

TEST(SineCosine, AreNearTheLibrarysInDouble) {
  double worst = 0;
  for (double x = 0; x < 200000; x = x * 1.0003 + 0.01) {
    double s = 0, c = 0;
    sine_cosine(x, &s, &c);
    worst = std::max({worst, std::abs(s - std::sin(x)), std::abs(c - std::cos(x))});
  }
  // Half a unit each of the two last additions near 1, and as much in the library: far below the
  // 6e-8 of the float it becomes.
  EXPECT_LT(worst, 5e-16);
}

TEST(SineCosine, AreExactAtZero) {
  double s = 1, c = 0;
  sine_cosine(0, &s, &c);
  EXPECT_EQ(s, 0);
  EXPECT_EQ(c, 1);
}

}  // namespace
}  // namespace slmc
