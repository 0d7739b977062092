// The decoder against transformers' golden logits.
#include "compress/runtime/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "tests/support/golden.h"

namespace slmc {
namespace {

using testing::compare_golden;
using testing::golden_names;
using testing::GoldenCase;
using testing::GoldenModel;
using testing::kLogitTolerance;
using testing::load_golden;
using testing::ReconfiguredWeights;

std::vector<float> all_logits(const Decoder& decoder, const std::vector<int32_t>& ids,
                              int64_t chunk = 0) {
  const auto total = static_cast<int64_t>(ids.size()), vocab = decoder.arch().vocab;
  std::vector<float> logits(static_cast<size_t>(total * vocab));
  const auto cache = decoder.new_cache(total);
  if (chunk == 0) chunk = total;
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    decoder.forward(*cache,
                    std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                    logits.data() + first * vocab, false);
  }
  return logits;
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, LogitsEqualTransformers) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  const auto decoder = Decoder::create(*model, Activations::kF32);
  const auto difference =
      compare_golden(golden, golden.base, all_logits(*decoder, golden.prompt).data());
  EXPECT_LE(difference.largest, kLogitTolerance);
  EXPECT_TRUE(difference.same_best);
}

TEST_P(Golden, EveryKeyOfTheConfigurationCounts) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  for (const GoldenCase& mutant : golden.mutants) {
    const ReconfiguredWeights weights(model, mutant.config);
    const std::vector<float> logits =
        all_logits(*Decoder::create(weights, Activations::kF32), golden.prompt);
    const auto difference = compare_golden(golden, mutant, logits.data());
    EXPECT_LE(difference.largest, kLogitTolerance) << mutant.name;
    EXPECT_TRUE(difference.same_best) << mutant.name;
    EXPECT_GE(compare_golden(golden, golden.base, logits.data()).largest, 100 * kLogitTolerance)
        << mutant.name;
  }
}

// A model of the tests' shared folder, when that is there: greedy argmax and 16 logits after each
// prompt.
TEST(SharedModels, LastLogitsEqualTransformers) {
  int found = 0;
  for (const std::string name : {"medqa-8m", "stories260k"}) {
    const std::string path = std::string(SLMC_SOURCE_DIR) + "/../shared/models/" + name;
    if (!std::filesystem::exists(path + "/golden.json")) continue;
    const Json golden = read_json(path + "/golden.json");
    if (!golden.contains("float32_transformers")) continue;
    const auto decoder = Decoder::create(*Model::open(path), Activations::kF32);
    for (const Json& sample : golden["float32_transformers"]) {
      ++found;
      const auto ids = sample["ids"].get<std::vector<int32_t>>();
      std::vector<float> logits(static_cast<size_t>(decoder->arch().vocab));
      decoder->forward(*decoder->new_cache(static_cast<int64_t>(ids.size())), ids, logits.data(),
                       true);
      EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(),
                sample["argmax"].get<int64_t>());
      for (size_t i = 0; i < sample["last_logits_first16"].size(); ++i) {
        EXPECT_NEAR(logits[i], sample["last_logits_first16"][i].get<double>(), kLogitTolerance);
      }
    }
  }
  if (found == 0) GTEST_SKIP() << "no ../shared/models beside the source folder";
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Golden, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace slmc
