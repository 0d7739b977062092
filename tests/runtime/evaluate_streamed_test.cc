// Text that goes through models block by block is scored to the bits of whole decoders.
#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/evaluate.h"
#include "compress/runtime/evaluate_windows.h"
#include "formats/model.h"
#include "tests/runtime/random_weights.h"
#include "tests/support/golden.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using testing::random_weights;
using testing::small_architecture;

void expect_equal(const WindowScores& streamed, const WindowScores& whole) {
  EXPECT_EQ(streamed.windows, whole.windows);
  EXPECT_EQ(streamed.scored, whole.scored);
  EXPECT_EQ(streamed.teacher_nll, whole.teacher_nll);
  ASSERT_EQ(streamed.models.size(), whole.models.size());
  for (size_t m = 0; m < whole.models.size(); ++m) {
    EXPECT_EQ(streamed.models[m].nll, whole.models[m].nll);
    EXPECT_EQ(streamed.models[m].kld, whole.models[m].kld);
    EXPECT_EQ(streamed.models[m].same_top, whole.models[m].same_top);
  }
}

// Every family, with windows that threads share in and windows that threads have some of, in one
// round and in one for each window.
TEST(StreamedScores, AreThoseOfWholeDecoders) {
  const std::vector<std::string> names = testing::golden_names();
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const auto model = Model::open(testing::load_golden(name).path);
    const int64_t vocab = model->arch().vocab;
    const std::vector<int32_t> ids = testing::golden_prompt(9 * 24 + 5, vocab);
    const auto whole = Decoder::create(*model, Activations::kF32);
    Context context;
    for (const char* protocol : {"window", "llama.cpp"}) {
      const WindowProtocol windows = make_protocol(protocol, 24, 1, true);
      const WindowScores expected =
          score_windows({whole.get()}, nullptr, ids, vocab, windows, context);
      for (const int count : {1, 3, 8}) {
        set_threads(count);
        for (const uint64_t state_bytes : {kStateBytes, uint64_t{1}})
          expect_equal(score_streamed({{.weights = model.get()}}, nullptr, ids, vocab, windows,
                                      context, state_bytes),
                       expected);
      }
      set_threads(0);
    }
  }
}

TEST(StreamedScores, AreThoseOfWholeDecodersInEveryModeBesideATeacher) {
  for (const bool tied : {true, false}) {
    Architecture arch = small_architecture();
    arch.tied = tied;
    arch.vocab = 150;  // Of which 140 are real.
    const MemoryWeights weights = random_weights(arch, DType::kQ8_0),
                        teacher = random_weights(arch, DType::kF16);
    const auto f32 = Decoder::create(weights, Activations::kF32, KvType::kInt8),
               q8 = Decoder::create(weights, Activations::kQ8, KvType::kInt8),
               above = Decoder::create(teacher, Activations::kF32);
    const std::vector<int32_t> ids = testing::golden_prompt(700, 140);
    const WindowProtocol protocol = make_protocol("window", 130, -1, false);
    Context context;
    const WindowScores expected =
        score_windows({f32.get(), q8.get()}, above.get(), ids, 140, protocol, context);
    EXPECT_NE(expected.models[0].nll, expected.models[1].nll);
    expect_equal(score_streamed({{&weights, Activations::kF32, KvType::kInt8},
                                 {&weights, Activations::kQ8, KvType::kInt8}},
                                &teacher, ids, 140, protocol, context),
                 expected);
  }
}

// Weights that are only in memory, in both modes in one pass: the figures of decoders made of them.
TEST(StreamedScores, AreTheFiguresOfWeightsInMemory) {
  const MemoryWeights weights = random_weights(small_architecture(), DType::kQ8_0),
                      teacher = random_weights(small_architecture(), DType::kF16);
  const auto above = Decoder::create(teacher, Activations::kF32);
  const std::vector<int32_t> ids = testing::golden_prompt(200, 101);
  Context context;
  Json figures = evaluate_weights(weights, &teacher, ids,
                                  {.context = 24, .max_tokens = 150, .also_q8 = true}, context);
  Json q8 = figures["q8"];
  figures.erase("q8");
  const auto expected = [&](Activations mode) {
    return evaluate_decoders(*Decoder::create(weights, mode), above.get(), ids,
                             {.context = 24, .max_tokens = 150}, context);
  };
  EXPECT_EQ(figures, expected(Activations::kF32));
  const Json alone = expected(Activations::kQ8);
  for (const char* key : {"activations", "perplexity", "perplexity_se", "against"})
    EXPECT_EQ(q8[key], alone[key]) << key;
}

TEST(StreamedScores, RefuseWhatWholeDecodersRefuse) {
  const MemoryWeights weights = random_weights(small_architecture(), DType::kF32);
  const WindowProtocol protocol = make_protocol("window", 8, -1, false);
  Context context;
  const auto code_of = [&](const std::vector<int32_t>& ids) {
    try {
      score_streamed({{.weights = &weights}}, nullptr, ids, 101, protocol, context);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::kOk;
  };
  EXPECT_EQ(code_of({1, 2, 3}), ExitCode::kUsage);
  EXPECT_EQ(code_of({1, 2, 3, 4, 5, 6, 7, 101}), ExitCode::kBadInput);

  const auto encoder = Model::open(SLMC_FIXTURES "/models/bert_classifier");
  EXPECT_NE(test::error_of([&] {
              score_streamed({{.weights = encoder.get()}}, nullptr, {1, 2, 3, 4, 5, 6, 7, 8}, 96,
                             protocol, context);
            }).find("an encoder gives no next token"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
