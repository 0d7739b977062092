// Every registered loss and the fused kernel against double-precision references that are written
// out here.
#include "distill/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/error.h"
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
  const auto kl = [](const Values& a, const Values& b) {
    double total = 0;
    for (size_t i = 0; i < a.size(); ++i) total += a[i] * std::log(a[i] / b[i]);
    return total;
  };
  const auto mixed = [](const Values& a, const Values& b, double share) {
    Values m;
    for (size_t i = 0; i < a.size(); ++i) m.push_back(share * a[i] + (1 - share) * b[i]);
    return m;
  };
  if (name == "forward_kl") return kl(p, q);
  if (name == "reverse_kl") return kl(q, p);
  if (name == "skew_kl") return kl(p, mixed(p, q, 0.1));
  if (name == "skew_reverse_kl") return kl(q, mixed(q, p, 0.1));
  if (name == "jsd") return 0.5 * kl(p, mixed(p, q, 0.5)) + 0.5 * kl(q, mixed(p, q, 0.5));
  if (name == "jsd(beta=0.2)") return 0.2 * kl(p, mixed(p, q, 0.2)) + 0.8 * kl(q, mixed(p, q, 0.2));
  if (name == "total_variation") {
    for (size_t i = 0; i < p.size(); ++i) sum += 0.5 * std::abs(p[i] - q[i]);
    return sum;
  }
  ADD_FAILURE() << "no definition of " << name;
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
  double expected(const LossMix& mix, const std::string& text) const {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (learned[static_cast<size_t>(r)] == 0) continue;
      const float* z = student.data() + r * vocab;
      const int32_t label = labels[static_cast<size_t>(r)];
      const int64_t shared = mix.real_vocab > 0 ? mix.real_vocab : vocab;
      if (mix.distill != nullptr)
        sum += mix.weight * mix.temperature * mix.temperature *
               reference(text, softmax(teacher.data() + r * teacher_vocab, shared, mix.temperature),
                         softmax(z, shared, mix.temperature), label);
      sum += mix.ce_weight * -std::log(softmax(z, vocab, 1)[static_cast<size_t>(label)]);
    }
    return sum;
  }
  LossSums run(const LossMix& mix, double scale, std::vector<float>& values, bool gradient) const {
    LossScratch scratch;
    return loss_rows(mix, rows, vocab, values.data(),
                     {.logits = teacher.data(), .vocab = teacher_vocab, .top = {}}, labels.data(),
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
      EXPECT_NEAR(sums.total, fixture.expected(mix, GetParam()), 1e-5 * std::max(1.0, sums.total));
      for (size_t i = 0; i < gradient.size(); ++i) {
        Case up, down;
        up.student[i] += 1e-3f;
        down.student[i] -= 1e-3f;
        const double step =
            static_cast<double>(up.student[i]) - static_cast<double>(down.student[i]);
        EXPECT_NEAR(gradient[i],
                    0.5 * (up.expected(mix, GetParam()) - down.expected(mix, GetParam())) / step,
                    3e-5)
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

std::vector<std::string> names_and_parameters() {
  std::vector<std::string> all = loss_names();
  all.push_back("jsd(beta=0.2)");
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryLoss, ::testing::ValuesIn(names_and_parameters()));

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
  for (const std::string& name : loss_names()) {
    const auto loss = loss_by_name(name);
    std::vector<float> gradient = fixture.student;
    const LossSums sums = fixture.run(
        {.distill = loss.get(), .weight = 0.5, .ce_weight = 0.5, .temperature = 1, .real_vocab = 0},
        1, gradient, true);
    EXPECT_TRUE(std::isfinite(sums.total)) << name;
    for (const float value : gradient) EXPECT_TRUE(std::isfinite(value)) << name;
  }
}

TEST(Losses, AnUnknownNameSuggestsTheNearest) {
  try {
    loss_by_name("forward_ki");
    FAIL() << "no error";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("forward_kl"), std::string::npos);
  }
}

TEST(Losses, ParametersThatAreUnknownMalformedOrOutOfRangeAreRefused) {
  for (const char* text : {"jsd(beta=0)", "jsd(beta=1.5)", "jsd(beta)", "jsd(beta=x)",
                           "jsd(beat=0.5)", "jsd(beta=0.5", "forward_kl(beta=0.5)"})
    EXPECT_THROW(loss_by_name(text), Error) << text;
  EXPECT_EQ(*loss_by_name(" jsd( beta = 0.25 ) ")->parameters().front().value, 0.25);
}

}  // namespace
}  // namespace slmc
