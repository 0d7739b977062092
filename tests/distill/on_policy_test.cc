// The student's own samples: where they start, that they are what the runtime says, and that
// nothing but weights, prompts and seed decides them.
#include "distill/on_policy.h"

#include <gtest/gtest.h>

#include "compress/core/json.h"
#include "compress/core/parallel.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

/// One window of `learned.size()` ids, document numbers as given or none.
PackedData window(const std::vector<uint8_t>& learned, const std::vector<int32_t>& document = {}) {
  PackedData data;
  data.context = std::ssize(learned);
  data.windows = 1;
  data.tokens = data.context + 1;
  for (int32_t i = 0; i <= data.context; ++i) data.ids.push_back(i + 10);
  data.learned = learned;
  data.learned.push_back(1);
  data.document = document;
  if (!document.empty()) data.document.push_back(document.back());
  return data;
}

TEST(PromptOf, TextLeavesTheLastTokensToTheStudent) {
  const Prompt prompt = prompt_of(window({0, 1, 1, 1, 1, 1, 1, 1}), 0, 3);
  EXPECT_EQ(prompt.begin, 0);
  EXPECT_EQ(prompt.end, 5);
  // At least one token is kept.
  EXPECT_EQ(prompt_of(window({1, 1, 1, 1}), 0, 4).end, 1);
}

TEST(PromptOf, InstructionsAreAnswered) {
  // Two responses: the later one leaves room for two tokens, not for four.
  const std::vector<uint8_t> learned{0, 0, 0, 1, 1, 0, 0, 1, 1, 1};
  EXPECT_EQ(prompt_of(window(learned), 0, 2).end, 7);
  EXPECT_EQ(prompt_of(window(learned), 0, 4).end, 3);
  EXPECT_EQ(prompt_of(window(learned), 0, 9).end, 3);
}

TEST(PromptOf, DocumentsThatAreKeptApartBeginTheirPrompt) {
  const std::vector<uint8_t> learned{0, 0, 0, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<int32_t> document{0, 0, 0, 0, 0, 1, 1, 1, 1, 1};
  const Prompt prompt = prompt_of(window(learned, document), 0, 2);
  EXPECT_EQ(prompt.begin, 5);
  EXPECT_EQ(prompt.end, 7);
}

class Samples : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("model"), {.layers = 2, .context = 64});
    model_ = Model::open(folder_.file("model"));
    // Every window is the beginning of a text, with the token that begins one.
    std::vector<TokenizedDocument> documents(7);
    for (size_t i = 0; i < documents.size(); ++i) {
      const std::string text =
          "the cat saw " + std::to_string(i * 37 % 101) + " dogs and then it ran home again.";
      documents[i].ids = model_->tokenizer().encode(text);
      documents[i].ids.resize(32);
      documents[i].learned.assign(32, 1);
    }
    data_ = pack_documents(documents, 32, 0, false, 0);
    data_.document.clear();
  }
  /// What the sample says, without its prompt.
  static std::vector<int32_t> said(const PackedData& samples, int64_t index) {
    std::vector<int32_t> ids;
    const int64_t base = index * samples.context;
    for (int64_t i = base; i < base + samples.context; ++i)
      if (samples.learned[static_cast<size_t>(i)] != 0)
        ids.push_back(samples.ids[static_cast<size_t>(i)]);
    return ids;
  }
  test::TemporaryFolder folder_;
  std::shared_ptr<const Model> model_;
  PackedData data_;
};

TEST_F(Samples, AtTemperatureZeroAreWhatGenerateSays) {
  OnPolicy how;
  how.temperature = 0;
  how.tokens = 12;
  const PackedData samples = sample_windows(*model_, data_, {0, 2, 5}, how, 1);
  ASSERT_EQ(samples.windows, 3);
  const std::vector<int64_t> windows{0, 2, 5};
  for (int64_t i = 0; i < 3; ++i) {
    const int32_t* const ids = data_.inputs(windows[static_cast<size_t>(i)]);
    const std::vector<int32_t> prompt(ids, ids + 20);
    ASSERT_TRUE(std::equal(prompt.begin(), prompt.end(), samples.inputs(i)));
    const std::string text = model_->tokenizer().decode(prompt, true);
    ASSERT_EQ(model_->tokenizer().encode(text), prompt) << "the prompt as text is another";
    const auto run =
        test::run_slmc({"generate", folder_.file("model"), "-p", text, "-n", "12", "--temperature",
                        "0", "--activations", "f32", "--json", folder_.file("said.json"), "-q"});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const Json report = read_json(folder_.file("said.json"));
    if (report["stopped"] == true) continue;
    EXPECT_EQ(report["ids"].get<std::vector<int32_t>>(), said(samples, i));
  }
}

TEST_F(Samples, FollowFromSeedAndPromptOnAnyNumberOfThreads) {
  OnPolicy how;
  how.tokens = 16;
  how.vocab = 300;
  const int before = threads();
  set_threads(1);
  const PackedData one = sample_windows(*model_, data_, {3, 1, 4, 0}, how, 7);
  set_threads(2);
  const PackedData two = sample_windows(*model_, data_, {3, 1, 4, 0}, how, 7),
                   other = sample_windows(*model_, data_, {3, 1, 4, 0}, how, 8);
  set_threads(before);
  EXPECT_EQ(one.ids, two.ids);
  EXPECT_EQ(one.learned, two.learned);
  EXPECT_NE(one.ids, other.ids);
  // The model's 320 rows are likely alike, so 20 of them would come among 64 tokens.
  for (const int32_t id : one.ids) EXPECT_LT(id, 300);
}

TEST_F(Samples, OfRanksAreTheirSharesOfTheSamplesOfOne) {
  OnPolicy how;
  how.tokens = 16;
  const std::vector<int64_t> windows{3, 1, 4, 0, 2};
  const PackedData alone = sample_windows(*model_, data_, windows, how, 7);
  PackedData together = alone;
  std::fill(together.ids.begin(), together.ids.end(), 0);
  int64_t sampled = 0;
  for (int rank = 0; rank < 2; ++rank) {
    const PackedData part =
        sample_windows(*model_, data_, windows, how, 7, {.rank = rank, .size = 2});
    ASSERT_EQ(part.windows, 5);
    ASSERT_LT(part.tokens, alone.tokens);
    sampled += part.tokens;
    // Where another rank's samples go, there is nothing.
    for (size_t i = 0; i < part.ids.size(); ++i) together.ids[i] += part.ids[i];
  }
  EXPECT_EQ(sampled, alone.tokens);
  EXPECT_EQ(together.ids, alone.ids);
}

TEST_F(Samples, EndWithTheStopThatCame) {
  OnPolicy how;
  how.temperature = 0;
  how.tokens = 12;
  const std::vector<int32_t> free = said(sample_windows(*model_, data_, {0}, how, 1), 0);
  how.stops = {free[4]};
  const auto first = std::find(free.begin(), free.end(), free[4]);
  EXPECT_EQ(said(sample_windows(*model_, data_, {0}, how, 1), 0),
            std::vector<int32_t>(free.begin(), first + 1));
}

}  // namespace
}  // namespace slmc
