#include "formats/architecture.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;

Rope rope_of(const Json& entry) {
  const Json& settings = entry["rope_parameters"];
  const std::string type = settings["rope_type"];
  Rope rope;
  rope.dims = entry["head_dim"];
  rope.theta = settings["rope_theta"];
  rope.factor = settings.value("factor", 1.0);
  rope.low_freq_factor = settings.value("low_freq_factor", 1.0);
  rope.high_freq_factor = settings.value("high_freq_factor", 4.0);
  rope.original_context = settings.value("original_max_position_embeddings", 0);
  rope.scaling = type == "linear"   ? RopeScaling::kLinear
                 : type == "llama3" ? RopeScaling::kLlama3
                                    : RopeScaling::kNone;
  return rope;
}

// The fixture holds what transformers computes in float32. Its power is a vector library's, at most
// one unit in the last place away from the correctly rounded one; scaling adds at most two
// roundings.
TEST(Rope, InverseFrequenciesAreTransformers) {
  const Json cases = read_json(std::string(SLMC_FIXTURES) + "/formats/rope.json");
  ASSERT_EQ(cases.size(), 6u);
  int64_t exact = 0, all = 0;
  for (const Json& entry : cases) {
    const std::vector<float> found = rope_inverse_frequencies(rope_of(entry));
    ASSERT_EQ(found.size(), entry["inverse_frequencies"].size());
    for (size_t i = 0; i < found.size(); ++i) {
      const float expected = entry["inverse_frequencies"][i].get<float>();
      EXPECT_NEAR(found[i], expected, 3.6e-7f * expected)
          << entry["rope_parameters"].dump() << " at " << i;
      exact += found[i] == expected;
      ++all;
    }
  }
  EXPECT_GT(exact, all * 9 / 10);
}

// Closed form: the factors are unscaled / scaled, 1 for short wavelengths and the factor for long
// ones.
TEST(Rope, FactorsDivideTheUnscaledFrequencies) {
  Rope rope{.theta = 500000.0,
            .dims = 128,
            .scaling = RopeScaling::kLlama3,
            .factor = 8.0,
            .original_context = 8192,
            .factors = {}};
  const std::vector<float> factors = rope_frequency_factors(rope);
  ASSERT_EQ(factors.size(), 64u);
  EXPECT_EQ(factors.front(), 1.0f);
  EXPECT_EQ(factors.back(), 8.0f);
  for (size_t i = 1; i < factors.size(); ++i) EXPECT_GE(factors[i], factors[i - 1] * 0.999f);
  EXPECT_TRUE(rope_frequency_factors(Rope{.dims = 128, .factors = {}}).empty());
}

TEST(Rope, RecognisesThePublishedLlama3Factors) {
  const Rope published{.theta = 500000.0,
                       .dims = 64,
                       .scaling = RopeScaling::kLlama3,
                       .factor = 32.0,
                       .original_context = 8192,
                       .factors = {}};
  Rope rope{.theta = 500000.0, .dims = 64, .factors = {}};
  adopt_rope_factors(rope, rope_frequency_factors(published), "x.gguf");
  EXPECT_EQ(rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(rope_inverse_frequencies(rope), rope_inverse_frequencies(published));
}

TEST(Rope, KeepsOtherFactorsAsData) {
  Rope rope{.theta = 10000.0, .dims = 4, .factors = {}};
  adopt_rope_factors(rope, {1.0f, 3.0f}, "x.gguf");
  EXPECT_EQ(rope.scaling, RopeScaling::kFactors);
  EXPECT_EQ(rope_inverse_frequencies(rope), (std::vector<float>{1.0f, 0.01f / 3.0f}));
}

TEST(Rope, RefusesFactorsThatCannotBe) {
  Rope rope{.theta = 10000.0, .dims = 4, .factors = {}};
  EXPECT_NE(error_of([&] {
              adopt_rope_factors(rope, {1.0f}, "x.gguf");
            }).find("expected 2 values, found 1"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              adopt_rope_factors(rope, {1.0f, 0.0f}, "x.gguf");
            }).find("positive"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              adopt_rope_factors(rope, {1.0f, NAN}, "x.gguf");
            }).find("positive"),
            std::string::npos);
}

TEST(Architecture, NamesTheFirstDifference) {
  Architecture a, b;
  EXPECT_EQ(architecture_difference(a, b), "");
  b.norm_eps = static_cast<double>(static_cast<float>(a.norm_eps));
  EXPECT_EQ(architecture_difference(a, b), "");
  b.kv_heads = 3;
  EXPECT_EQ(architecture_difference(a, b), "kv_heads: 0 against 3");
}

}  // namespace
}  // namespace slmc
