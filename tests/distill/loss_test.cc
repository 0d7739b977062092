// Every registered loss and the fused kernel against double-precision references that are written
// out here.
#include "distill/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/error.h"
#include "compress/core/random.h"
#include "distill/hidden_pairs.h"
#include "distill/loss_kernel.h"
#include "distill/loss_mixture.h"
#include "distill/training.h"

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
      if (!mix.distill.empty())
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

/// A loss over distributions; null if `text` names one over hidden states.
std::unique_ptr<DistributionLoss> distribution(const std::string& text) {
  std::unique_ptr<Loss> loss = loss_by_name(text);
  auto* found = dynamic_cast<DistributionLoss*>(loss.get());
  if (found != nullptr) loss.release();
  return std::unique_ptr<DistributionLoss>(found);
}

class EveryLoss : public ::testing::TestWithParam<std::string> {};

// Tolerances: the kernel works in float, whose sums over 40 values are good to 1e-5; finite
// differences in double with h = 1e-4 to 1e-7.
TEST_P(EveryLoss, ValueAndGradientMatchTheDefinition) {
  const auto loss = distribution(GetParam());
  for (const double temperature : {1.0, 2.5})
    for (const int64_t real_vocab : {int64_t{0}, int64_t{37}}) {
      const LossMix mix{.distill = {{loss.get()}},
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
  const auto loss = distribution(GetParam());
  if (!loss->needs_teacher()) GTEST_SKIP() << "compares with the text";
  Case fixture;
  fixture.teacher_vocab = fixture.vocab;
  fixture.teacher = fixture.student;
  std::vector<float> gradient = fixture.student;
  const LossSums sums = fixture.run(
      {.distill = {{loss.get()}}, .weight = 1, .ce_weight = 0, .temperature = 1, .real_vocab = 0},
      1, gradient, true);
  EXPECT_NEAR(sums.distill, 0, 1e-5);
  EXPECT_EQ(sums.agree, sums.tokens);
  for (const float value : gradient) EXPECT_NEAR(value, 0, 1e-6);
}

std::vector<std::string> names_and_parameters() {
  std::vector<std::string> all{"jsd(beta=0.2)"};
  for (const std::string& name : loss_names())
    if (distribution(name) != nullptr) all.push_back(name);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryLoss, ::testing::ValuesIn(names_and_parameters()));

// The sum of the definitions, and the softmaxes' gradient of that sum, by finite differences.
TEST(LossKernel, MixesLossesByTheirWeights) {
  const std::vector<std::pair<std::string, double>> terms{
      {"forward_kl", 0.5}, {"reverse_kl", 0.2}, {"jsd(beta=0.2)", 1.5}};
  LossMix mix{.weight = 0.7, .ce_weight = 0.3, .temperature = 2, .real_vocab = 37};
  std::vector<std::unique_ptr<DistributionLoss>> losses;
  for (const auto& [text, weight] : terms) {
    losses.push_back(distribution(text));
    mix.distill.push_back({losses.back().get(), weight, losses.size() - 1});
  }
  const auto expected = [&](const Case& at) {
    double sum = at.expected({.weight = 0, .ce_weight = 0.3}, "");
    for (size_t i = 0; i < terms.size(); ++i)
      sum += terms[i].second * at.expected({.distill = {mix.distill[i]},
                                            .weight = 0.7,
                                            .ce_weight = 0,
                                            .temperature = 2,
                                            .real_vocab = 37},
                                           terms[i].first);
    return sum;
  };
  Case fixture;
  std::vector<float> gradient = fixture.student;
  const LossSums sums = fixture.run(mix, 1, gradient, true);
  EXPECT_NEAR(sums.total, expected(fixture), 1e-5 * sums.total);
  ASSERT_EQ(sums.terms.size(), 3u);
  EXPECT_NEAR(sums.distill, 0.5 * sums.terms[0] + 0.2 * sums.terms[1] + 1.5 * sums.terms[2], 1e-9);
  for (size_t i = 0; i < gradient.size(); ++i) {
    Case up, down;
    up.student[i] += 1e-3f;
    down.student[i] -= 1e-3f;
    const double step = static_cast<double>(up.student[i]) - static_cast<double>(down.student[i]);
    EXPECT_NEAR(gradient[i], (expected(up) - expected(down)) / step, 1e-4) << "logit " << i;
  }
}

/// Definitions of losses over hidden states, by name.
double hidden_reference(const std::string& name, const Values& s, const Values& t) {
  double squares = 0, dot = 0, ss = 0, tt = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    squares += (s[i] - t[i]) * (s[i] - t[i]);
    dot += s[i] * t[i], ss += s[i] * s[i], tt += t[i] * t[i];
  }
  if (name == "mse_hidden") return squares / static_cast<double>(s.size());
  if (name == "cosine_hidden") return 1 - dot / std::sqrt(ss * tt);
  ADD_FAILURE() << "no definition of " << name;
  return 0;
}

// Differences of the definition in double with h = 1e-5, whose error is 1e-10; the loss works in
// float.
TEST(HiddenLosses, ValueAndGradientMatchTheDefinition) {
  Random random(4);
  std::vector<float> s, t;
  for (int i = 0; i < 24; ++i) {
    s.push_back(static_cast<float>(random.normal()));
    t.push_back(static_cast<float>(random.normal()));
  }
  int swept = 0;
  for (const std::string& name : loss_names()) {
    const auto made = loss_by_name(name);
    const auto* const loss = dynamic_cast<const HiddenLoss*>(made.get());
    if (loss == nullptr) continue;
    ++swept;
    std::vector<float> gradient(s.size());
    const double value = loss->row({24, t.data(), s.data()}, gradient.data());
    const Values teacher(t.begin(), t.end());
    EXPECT_NEAR(value, hidden_reference(name, Values(s.begin(), s.end()), teacher), 1e-6) << name;
    for (size_t i = 0; i < s.size(); ++i) {
      Values up(s.begin(), s.end()), down = up;
      up[i] += 1e-5, down[i] -= 1e-5;
      EXPECT_NEAR(
          gradient[i],
          (hidden_reference(name, up, teacher) - hidden_reference(name, down, teacher)) / 2e-5,
          1e-6)
          << name;
    }
  }
  EXPECT_GE(swept, 2);
}

TEST(LossMixture, ReadsWeightsRampsAndParameters) {
  const LossMixture losses = parse_losses(
      "forward_kl:0.7, jsd(beta=0.3), cosine_hidden(layers=0:1+1:3):0.4..0@0.5, "
      "cross_entropy:0..0.2");
  ASSERT_EQ(losses.size(), 4u);
  EXPECT_EQ(losses[0].weight.at(5, 11), 0.7);
  EXPECT_EQ(losses[1].weight.at(5, 11), 1.0);
  EXPECT_EQ(losses[1].text, "jsd(beta=0.3)");
  EXPECT_EQ(losses[2].hidden()->layers(), "0:1+1:3");
  // 11 steps: the first half ends at step 5.
  EXPECT_DOUBLE_EQ(losses[2].weight.at(0, 11), 0.4);
  EXPECT_DOUBLE_EQ(losses[2].weight.at(2, 11), 0.24);
  EXPECT_DOUBLE_EQ(losses[2].weight.at(5, 11), 0.0);
  EXPECT_DOUBLE_EQ(losses[2].weight.at(10, 11), 0.0);
  const LossMix mix = mix_at(losses, {.weight = 0.5, .ce_weight = 0.1}, 30, 10, 11);
  ASSERT_EQ(mix.distill.size(), 2u);
  ASSERT_EQ(mix.hidden.size(), 1u);
  EXPECT_EQ(mix.hidden[0].term, 2u);
  EXPECT_DOUBLE_EQ(mix.ce_weight, 0.1 + 0.5 * 0.2);
  EXPECT_TRUE(compares_hidden(losses) && needs_teacher(losses) && names_cross_entropy(losses));
  EXPECT_FALSE(names_cross_entropy(parse_losses("forward_kl")));
}

TEST(LossMixture, WhatItCannotReadIsRefused) {
  for (const char* text :
       {"", "forward_kl:", "forward_kl:x", "forward_kl:-1", "forward_kl,", "forward_kl:1..",
        "forward_kl:1@2", "forward_kl,forward_kl:0.5", "forward_kl:0.5,jsd(beta=2)"})
    EXPECT_THROW(parse_losses(text), Error) << text;
}

TEST(HiddenPairs, GoWithTheSamePartOfTheDepthOrAsTold) {
  const Architecture student{.layers = 2, .hidden = 8}, teacher{.layers = 6, .hidden = 12};
  const auto pairs = hidden_pairs(parse_losses("mse_hidden"), 0, student, teacher);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].teacher, 2);
  EXPECT_EQ(pairs[1].teacher, 5);
  EXPECT_EQ(pairs[1].projection, "hidden.0.1.projection");
  const LossMixture told = parse_losses("forward_kl,mse_hidden(layers=1:3+0:0)");
  EXPECT_TRUE(hidden_pairs(told, 0, student, teacher).empty());
  ASSERT_EQ(hidden_pairs(told, 1, student, teacher).size(), 2u);
  EXPECT_EQ(hidden_pairs(told, 1, student, teacher)[0].teacher, 3);
  EXPECT_EQ(hidden_pairs(told, 1, teacher, teacher)[0].projection, "");
  for (const char* text : {"mse_hidden(layers=2:0)", "mse_hidden(layers=0:6)",
                           "mse_hidden(layers=0)", "mse_hidden(layers=a:b)"})
    EXPECT_THROW(hidden_pairs(parse_losses(text), 0, student, teacher), Error) << text;
}

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
    const auto loss = distribution(name);
    if (loss == nullptr) continue;
    std::vector<float> gradient = fixture.student;
    const LossSums sums = fixture.run({.distill = {{loss.get()}},
                                       .weight = 0.5,
                                       .ce_weight = 0.5,
                                       .temperature = 1,
                                       .real_vocab = 0},
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
