#include "compress/runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/core/error.h"
#include "tests/runtime/random_weights.h"

namespace slmc {
namespace {

std::map<int32_t, double> shares(const std::vector<float>& logits, const SamplingOptions& options,
                                 int draws = 20000) {
  Random random(11);
  std::map<int32_t, double> result;
  for (int i = 0; i < draws; ++i) result[sample_token(logits, {}, options, random)] += 1.0 / draws;
  return result;
}

TEST(Sampling, GreedyTakesTheLowestIdAmongEquals) {
  Random random(1);
  EXPECT_EQ(sample_token(std::vector<float>{1, 3, 2, 3}, {}, {}, random), 1);
}

TEST(Sampling, FollowsTheSoftmax) {
  // Probabilities 1/2, 1/4, 1/8, 1/8; three standard errors of 20000 draws are 0.011.
  const std::vector<float> logits = {0, std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const auto found = shares(logits, {.temperature = 1.0});
  EXPECT_NEAR(found.at(0), 0.5, 0.011);
  EXPECT_NEAR(found.at(1), 0.25, 0.011);
  EXPECT_NEAR(found.at(3), 0.125, 0.011);
  // Temperature 1/2 squares the probabilities: 16, 4, 1, 1 of 22.
  EXPECT_NEAR(shares(logits, {.temperature = 0.5}).at(0), 16.0 / 22, 0.011);
}

TEST(Sampling, CutsTheTail) {
  const std::vector<float> logits = {0, std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  EXPECT_EQ(shares(logits, {.temperature = 1.0, .top_k = 2}).size(), 2u);
  EXPECT_EQ(shares(logits, {.temperature = 1.0, .top_p = 0.7}).size(),
            2u);  // 0.5 is short of 0.7, 0.75 is not.
  EXPECT_EQ(shares(logits, {.temperature = 1.0, .top_p = 0.4}).size(), 1u);
  EXPECT_EQ(shares(logits, {.temperature = 1.0, .min_p = 0.4}).size(), 2u);
  EXPECT_NEAR(shares(logits, {.temperature = 1.0, .top_k = 2}).at(0), 2.0 / 3, 0.011);
}

TEST(Sampling, PenalisesWhatCameBefore) {
  Random random(1);
  const std::vector<float> logits = {2.0f, 1.5f, -1.0f};
  const std::vector<int32_t> history = {0, 0};
  EXPECT_EQ(sample_token(logits, history, {.repeat_penalty = 1.5}, random),
            1);  // 2 / 1.5 = 1.33, once.
}

TEST(Sampling, RefusesLogitsThatAreNotFinite) {
  Random random(1);
  for (const float bad : {NAN, INFINITY}) {
    for (const double temperature : {0.0, 1.0}) {
      try {
        sample_token(std::vector<float>{1, bad, 2}, {}, {.temperature = temperature}, random);
        ADD_FAILURE() << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kBadInput);
      }
    }
  }
}

TEST(Sampling, RefusesNonsense) {
  Random random(1);
  const std::vector<float> logits = {1.0f};
  EXPECT_THROW(sample_token(logits, {}, {.temperature = -1}, random), Error);
  EXPECT_THROW(sample_token(logits, {}, {.temperature = 1, .top_p = 0}, random), Error);
  EXPECT_THROW(sample_token(logits, {}, {.temperature = std::nan("")}, random), Error);
}

TEST(Generate, ContinuesStopsAndRepeats) {
  const MemoryWeights weights = testing::random_weights(testing::small_architecture(), DType::kF32);
  const auto decoder = Decoder::create(weights, Activations::kF32);
  const std::vector<int32_t> prompt = {5, 6, 7};
  std::vector<int32_t> seen;
  const auto keep = [&](int32_t id) {
    seen.push_back(id);
    return true;
  };
  const GenerationResult free = generate(*decoder, prompt, 12, {}, {}, 0, keep);
  EXPECT_EQ(free.ids.size(), 12u);
  EXPECT_EQ(free.ids, seen);
  EXPECT_FALSE(free.stopped);

  // Each greedy token is the best of the whole sequence so far, computed afresh.
  std::vector<int32_t> ids = prompt;
  for (const int32_t id : free.ids) {
    std::vector<float> logits(101);
    decoder->forward(*decoder->new_cache(100), ids, logits.data(), true);
    EXPECT_EQ(id, std::max_element(logits.begin(), logits.end()) - logits.begin());
    ids.push_back(id);
  }

  size_t first = 1;  // The first token that did not come before ends the text there.
  while (first < free.ids.size() &&
         std::find(free.ids.begin(), free.ids.begin() + static_cast<std::ptrdiff_t>(first),
                   free.ids[first]) != free.ids.begin() + static_cast<std::ptrdiff_t>(first)) {
    ++first;
  }
  if (first < free.ids.size()) {
    const std::vector<int32_t> stops = {free.ids[first]};
    const GenerationResult stopped = generate(*decoder, prompt, 12, stops, {}, 0, keep);
    EXPECT_TRUE(stopped.stopped);
    EXPECT_EQ(stopped.ids.size(), first);
  }

  const SamplingOptions warm{.temperature = 1.0};
  const auto a = generate(*decoder, prompt, 12, {}, warm, 3, keep).ids,
             b = generate(*decoder, prompt, 12, {}, warm, 3, keep).ids;
  EXPECT_EQ(a, b);
  EXPECT_NE(a, generate(*decoder, prompt, 12, {}, warm, 4, keep).ids);
  EXPECT_EQ(generate(*decoder, prompt, 12, {}, {}, 0, [](int32_t) { return false; }).ids.size(),
            1u);
}

}  // namespace
}  // namespace slmc
