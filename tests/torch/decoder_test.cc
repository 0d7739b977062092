// LibTorch's decoder against transformers' float32 logits, with a mutant for every key of the
// configuration that counts.
#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/torch_module.h"
#include "tests/support/golden.h"

namespace slmc::testing {
namespace {

class TorchDecoder : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchDecoder, MatchesTransformersAndFeelsEveryKey) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  TorchModule& torch = torch_module(Context{});
  const auto difference_of = [&](const GoldenCase& golden_case) {
    const ReconfiguredWeights weights(model, golden_case.config);
    return compare_golden(golden, golden_case, torch.logits(weights, golden.prompt, "cpu").data());
  };
  const GoldenDifference base = difference_of(golden.base);
  EXPECT_LE(base.largest, kLogitTolerance);
  EXPECT_TRUE(base.same_best);
  for (const GoldenCase& mutant : golden.mutants)
    EXPECT_LE(difference_of(mutant).largest, kLogitTolerance) << mutant.name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TorchDecoder, ::testing::ValuesIn(golden_names()));

TEST(TorchDecoderErrors, AnIdOutsideTheVocabularyIsRefused) {
  const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/llama_tied");
  EXPECT_THROW(torch_module(Context{}).logits(*model, std::vector<int32_t>{1, 4096}, "cpu"), Error);
}

}  // namespace
}  // namespace slmc::testing
