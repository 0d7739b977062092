// Every registered loss and the fused kernel against double-precision references that are written
// out here.
#include "distill/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/random.h"
#include "distill/loss_kernel.h"

namespace slmc {
namespace {

using Values = std::vector<double>;

Values softmax(const float* z, int64_t n, double t) {
  double top = z[0];
  for (int64_t i = 0; i < n; ++i) top = std::max(top, static_cast<double>(z[i]));
  Values p;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p.emplace_back(std::exp((z[i] - top) / t));
  for (double& value : p) value /= sum;
  return p;
}

/// Definitions, by name; a loss without one fails the sweep below.
double reference(const std::string& name, const Values& p, const Values& q, int32_t label) {
  double sum = 0;
  if (name == "cross_entropy") return -std::log(q[static_cast<size_t>(label)]);
  for (size_t i = 0; i < p.size(); ++i)
    if (name == "forward_kl") sum += p[i] * std::log(p[i] / q[i]);
  return sum;
}

struct Case {
  int64_t rows = 3, vocab = 40, teacher_vocab = 44, real_vocab = 37;
  std::vector<float> student, teacher;
  std::vector<int32_t> labels{5, 36, 0};
  std::vector<uint8_t> learned{1, 0, 1};
  Case() {
    Random random(7);
    for (int64_t i = 0; i < rows * vocab; ++i)
      student.push_back(static_cast<float>(2 * random.normal()));
    for (int64_t i = 0; i < rows * teacher_vocab; ++i)
      teacher.push_back(static_cast<float>(2 * random.normal()));
  }
  double expected(const LossMix& mix) const {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (learned[static_cast<size_t>(r)] == 0) continue;
      const float* z = student.data() + r * vocab;
      const int32_t label = labels[static_cast<size_t>(r)];
      const int64_t shared = mix.real_vocab > 0 ? mix.real_vocab : vocab;
      if (mix.distill != nullptr)
        sum += mix.weight * mix.temperature * mix.temperature *
               reference(std::string(mix.distill->name()),
                         softmax(teacher.data() + r * teacher_vocab, shared, mix.temperature),
                         softmax(z, shared, mix.temperature), label);
      sum += mix.ce_weight * -std::log(softmax(z, vocab, 1)[static_cast<size_t>(label)]);
    }
    return sum;
  }
  LossSums run(const LossMix& mix, double scale, std::vector<float>& values, bool gradient) const {
    LossScratch scratch;
    return loss_rows(mix, rows, vocab, values.data(), teacher_vocab, teacher.data(), labels.data(),
                     learned.data(), scale, gradient, scratch);
  }
};

class EveryLoss : public ::testing::TestWithParam<std::string> {};

// Tolerances: the kernel works in float, whose sums over 40 values are good to 1e-5; finite
// differences in double with h = 1e-4 to 1e-7.
TEST_P(EveryLoss, ValueAndGradientMatchTheDefinition) {
  const auto loss = loss_by_name(GetParam());
  for (const double temperature : {1.0, 2.5})
    for (const int64_t real_vocab : {int64_t{0}, int64_t{37}}) {
      const LossMix mix{.distill = loss.get(),
                        .weight = 0.7,
                        .ce_weight = 0.3,
                        .temperature = temperature,
                        .real_vocab = real_vocab};
      Case fixture;
      std::vector<float> gradient = fixture.student;
      const LossSums sums = fixture.run(mix, 0.5, gradient, true);
      EXPECT_EQ(sums.tokens, 2);
      EXPECT_NEAR(sums.total, fixture.expected(mix), 1e-5 * std::max(1.0, sums.total));
      for (size_t i = 0; i < gradient.size(); ++i) {
        Case up, down;
        up.student[i] += 1e-2f;
        down.student[i] -= 1e-2f;
        const double step =
            static_cast<double>(up.student[i]) - static_cast<double>(down.student[i]);
        EXPECT_NEAR(gradient[i], 0.5 * (up.expected(mix) - down.expected(mix)) / step, 3e-5)
            << "logit " << i << ", T " << temperature;
      }
    }
}

TEST_P(EveryLoss, VanishesOnTheTeacherItselfIfItCompares) {
  const auto loss = loss_by_name(GetParam());
  if (!loss->needs_teacher()) GTEST_SKIP() << "compares with the text";
  Case fixture;
  fixture.teacher_vocab = fixture.vocab;
  fixture.teacher = fixture.student;
  std::vector<float> gradient = fixture.student;
  const LossSums sums = fixture.run(
      {.distill = loss.get(), .weight = 1, .ce_weight = 0, .temperature = 1, .real_vocab = 0}, 1,
      gradient, true);
  EXPECT_NEAR(sums.distill, 0, 1e-5);
  EXPECT_EQ(sums.agree, sums.tokens);
  for (const float value : gradient) EXPECT_NEAR(value, 0, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryLoss, ::testing::ValuesIn(loss_names()));

TEST(LossKernel, WithoutGradientTheLogitsStay) {
  Case fixture;
  std::vector<float> values = fixture.student;
  fixture.run({}, 1, values, false);
  EXPECT_EQ(values, fixture.student);
}

TEST(LossKernel, RowsThatAreNotLearnedGetNoGradient) {
  Case fixture;
  std::vector<float> gradient = fixture.student;
  fixture.run({}, 1, gradient, true);
  for (int64_t i = 0; i < fixture.vocab; ++i)
    EXPECT_EQ(gradient[static_cast<size_t>(fixture.vocab + i)], 0.0f);
}

TEST(LossKernel, LargeLogitsStayFinite) {
  Case fixture;
  for (float& value : fixture.student) value *= 1e4f;
  for (float& value : fixture.teacher) value *= 1e4f;
  const auto loss = loss_by_name("forward_kl");
  std::vector<float> gradient = fixture.student;
  const LossSums sums = fixture.run(
      {.distill = loss.get(), .weight = 0.5, .ce_weight = 0.5, .temperature = 1, .real_vocab = 0},
      1, gradient, true);
  EXPECT_TRUE(std::isfinite(sums.total));
  for (const float value : gradient) EXPECT_TRUE(std::isfinite(value));
}

TEST(Losses, AnUnknownNameSuggestsTheNearest) {
  try {
    loss_by_name("forward_ki");
    FAIL() << "no error";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("forward_kl"), std::string::npos);
  }
}

}  // namespace
}  // namespace slmc
