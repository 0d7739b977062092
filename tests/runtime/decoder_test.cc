// The decoder against transformers' golden logits, and against itself: any instruction set, thread count and chunking gives the same bits.
#include "compress/runtime/decoder.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/isa.h"
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

std::vector<float> all_logits(const Decoder& decoder, const std::vector<int32_t>& ids, int64_t chunk = 0) {
  const auto total = static_cast<int64_t>(ids.size()), vocab = decoder.arch().vocab;
  std::vector<float> logits(static_cast<size_t>(total * vocab));
  const auto cache = decoder.new_cache(total);
  if (chunk == 0) chunk = total;
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    decoder.forward(*cache, std::span(ids).subspan(static_cast<size_t>(first), static_cast<size_t>(count)), logits.data() + first * vocab, false);
  }
  return logits;
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, LogitsEqualTransformers) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  const auto decoder = Decoder::create(*model, Activations::kF32);
  const auto difference = compare_golden(golden, golden.base, all_logits(*decoder, golden.prompt).data());
  EXPECT_LE(difference.largest, kLogitTolerance);
  EXPECT_TRUE(difference.same_best);
}

TEST_P(Golden, EveryKeyOfTheConfigurationCounts) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  for (const GoldenCase& mutant : golden.mutants) {
    const ReconfiguredWeights weights(model, mutant.config);
    const std::vector<float> logits = all_logits(*Decoder::create(weights, Activations::kF32), golden.prompt);
    const auto difference = compare_golden(golden, mutant, logits.data());
    EXPECT_LE(difference.largest, kLogitTolerance) << mutant.name;
    EXPECT_TRUE(difference.same_best) << mutant.name;
    EXPECT_GE(compare_golden(golden, golden.base, logits.data()).largest, 100 * kLogitTolerance) << mutant.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Golden, ::testing::ValuesIn(golden_names()), [](const auto& test) { return test.param; });

}  // namespace
}  // namespace slmc
