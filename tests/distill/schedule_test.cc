#include "distill/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"

namespace slmc {
namespace {

TEST(LearningRate, RisesInEqualStepsAndNeverFromZero) {
  const LearningRate rate{.peak = 1.0, .min_ratio = 0.1, .warmup = 4, .steps = 20};
  for (int step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(rate.at(step), (step + 1) / 5.0);
  EXPECT_DOUBLE_EQ(rate.at(4), 1.0);
}

TEST(LearningRate, CosineEndsAtTheMinimumAndPassesItsMiddle) {
  const LearningRate rate{.peak = 2.0, .min_ratio = 0.1, .warmup = 0, .steps = 101};
  EXPECT_NEAR(rate.at(100), 0.2, 1e-12);
  EXPECT_NEAR(rate.at(50), 1.1, 1e-12);
  EXPECT_NEAR(rate.at(25), 2.0 * (0.1 + 0.9 * 0.5 * (1.0 + std::sqrt(0.5))), 1e-12);  // cos(pi/4)
}

TEST(LearningRate, LinearAndConstant) {
  EXPECT_DOUBLE_EQ(
      (LearningRate{
          .peak = 1.0, .min_ratio = 0.0, .warmup = 0, .steps = 11, .decay = Decay::kLinear}
           .at(4)),
      0.6);
  EXPECT_DOUBLE_EQ(
      (LearningRate{
          .peak = 1.0, .min_ratio = 0.0, .warmup = 0, .steps = 11, .decay = Decay::kConstant}
           .at(10)),
      1.0);
}

TEST(LearningRate, WsdHoldsAndFallsLinearlyToTheMinimum) {
  const LearningRate rate{.peak = 1.0,
                          .min_ratio = 0.2,
                          .warmup = 2,
                          .steps = 20,
                          .decay = Decay::kLate,
                          .decay_steps = 4};
  EXPECT_DOUBLE_EQ(rate.at(0), 1.0 / 3.0);
  for (int step = 2; step < 16; ++step) EXPECT_DOUBLE_EQ(rate.at(step), 1.0);
  EXPECT_NEAR(rate.at(16), 0.8, 1e-12);
  EXPECT_NEAR(rate.at(17), 0.6, 1e-12);
  EXPECT_NEAR(rate.at(19), 0.2, 1e-12);
}

TEST(LearningRate, AnUnknownScheduleIsAUsageError) {
  try {
    decay_from_name("cosin");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("cosine"), std::string::npos);
  }
}

}  // namespace
}  // namespace slmc
