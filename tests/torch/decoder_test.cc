// LibTorch's decoder against transformers' float32 logits, with a mutant for every key of the
// configuration that counts.
#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/torch_module.h"
#include "tests/support/golden.h"
#include "tests/support/rewrite.h"
#include "tests/support/tiny_model.h"

namespace slmc::testing {
namespace {

class TorchDecoder : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchDecoder, MatchesTransformersAndFeelsEveryKey) {
  const GoldenModel golden = load_golden(GetParam());
  const auto model = Model::open(golden.path);
  TorchModule& torch = torch_module(Context{});
  const auto difference_of = [&](const GoldenCase& golden_case) {
    const ReconfiguredWeights weights(model, golden_case.config);
    return compare_golden(golden, golden_case,
                          torch.logits(weights, golden.prompt, {}, "cpu").data());
  };
  const GoldenDifference base = difference_of(golden.base);
  EXPECT_LE(base.largest, kLogitTolerance);
  EXPECT_TRUE(base.same_best);
  for (const GoldenCase& mutant : golden.mutants)
    EXPECT_LE(difference_of(mutant).largest, kLogitTolerance) << mutant.name;
}

// Through the other container and back, as the runtime's test does.
TEST_P(TorchDecoder, ReadsAGgufAlike) {
  const GoldenModel golden = load_golden(GetParam());
  if (GetParam() == "qwen3_biased") GTEST_SKIP() << "no GGUF can hold it";
  test::TemporaryFolder folder;
  rewrite_model(golden.path, folder.file("m.gguf"), DType::kF32);
  rewrite_model(folder.file("m.gguf"), folder.file("back"), DType::kF32);
  for (const std::string path : {"m.gguf", "back"}) {
    const auto logits =
        torch_module(Context{}).logits(*Model::open(folder.file(path)), golden.prompt, {}, "cpu");
    EXPECT_LE(compare_golden(golden, golden.base, logits.data()).largest, kLogitTolerance) << path;
  }
}

class TorchEncoder : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchEncoder, MatchesTransformersAndFeelsEveryKey) {
  const GoldenEncoder golden = load_golden_encoder(GetParam());
  const auto model = Model::open(golden.path);
  const auto difference = [&](const GoldenCase& expected, const WeightSource& weights) {
    return encoder_difference(golden, expected, [&](const std::vector<int32_t>& ids) {
      return torch_module(Context{}).logits(weights, ids, {}, "cpu");
    });
  };
  EXPECT_LE(difference(golden.base, *model), kLogitTolerance);
  for (const GoldenCase& mutant : golden.mutants)
    EXPECT_LE(difference(mutant, ReconfiguredWeights(model, mutant.config)), kLogitTolerance)
        << mutant.name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TorchEncoder, ::testing::ValuesIn(golden_names("lengths")));
INSTANTIATE_TEST_SUITE_P(Fixtures, TorchDecoder, ::testing::ValuesIn(golden_names()));

TEST(TorchDecoderErrors, AnIdOutsideTheVocabularyIsRefused) {
  const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/llama_tied");
  EXPECT_THROW(torch_module(Context{}).logits(*model, std::vector<int32_t>{1, 4096}, {}, "cpu"),
               Error);
}

}  // namespace
}  // namespace slmc::testing
