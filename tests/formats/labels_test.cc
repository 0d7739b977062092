#include "formats/labels.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/masking.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;

TEST(Labels, AreReadFromLinesAndErrorsNameThem) {
  const test::TemporaryFolder folder;
  const std::string good = folder.write(
      "good.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n\n{\"text\": \"b\", \"label\": 10}\n");
  const std::string more = folder.write(
      "more.jsonl", "{\"text\": \"c\", \"text_pair\": \"d\", \"label\": 9, \"group\": \"g\"}\n");
  EXPECT_TRUE(is_labelled({good}));
  EXPECT_FALSE(is_labelled({folder.write("t.txt", "{\"text\": \"a\", \"label\": \"x\"}")}));
  EXPECT_FALSE(is_labelled({folder.write("t.jsonl", "{\"text\": \"a\"}")}));
  const std::vector<LabelledText> texts = read_labelled({good, more});
  ASSERT_EQ(texts.size(), 3u);
  EXPECT_EQ(texts[1].text, "b");
  EXPECT_EQ(texts[1].label, "10");
  EXPECT_EQ(texts[1].source, good + ":3");
  EXPECT_EQ(texts[1].pair, "");
  EXPECT_EQ(texts[2].pair, "d");
  EXPECT_EQ(distinct_labels(texts), (std::vector<std::string>{"10", "9", "x"}));
  EXPECT_EQ(distinct_labels({texts[1], texts[2]}), (std::vector<std::string>{"9", "10"}));

  const auto error = [&](const std::string& line) {
    const std::string file = folder.write("bad.jsonl", line);
    return error_of([&] { read_labelled({file}); }).substr(file.size());
  };
  EXPECT_NE(error("{\"text\": \"a\"}").find(":1: \"label\": expected"), std::string::npos);
  EXPECT_NE(error("{\"text\": \"a\", \"label\": 0.5}").find("found number"), std::string::npos);
  EXPECT_NE(error("{\"text\": \"\", \"label\": 1}").find("is empty"), std::string::npos);
  EXPECT_NE(error("{\"text\": \"a\", \"text_pair\": 7, \"label\": 1}")
                .find("\"text_pair\": expected a text, found number"),
            std::string::npos);
  EXPECT_NE(error("{\"text\": \"a\", \"text_pair\": \" \", \"label\": 1}").find("is empty"),
            std::string::npos);
  EXPECT_NE(error("\n{\"secret\"").find(":2: the line is not valid JSON"), std::string::npos);
}

TEST(Labels, NamesGoToAConfigurationAndBack) {
  Json config = {{"num_labels", 7}};
  set_class_names({"b", "a"}, config);
  EXPECT_EQ(config.dump(), R"({"id2label":{"0":"b","1":"a"},"label2id":{"b":0,"a":1}})");
  EXPECT_EQ(class_names(config, 2), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(class_names(Json::object(), 2), (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  EXPECT_EQ(class_of({"b", "a"}, "a"), 1);
  EXPECT_EQ(class_of({"b", "a"}, "c"), -1);
}

class WordPiece : public ::testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = Tokenizer::from_json(
        test::slurp(std::string(SLMC_FIXTURES) + "/tokenizer/wordpiece.json"), Json(), "fixture");
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(WordPiece, LongTextsLoseTheirEndsAndKeepTheirSpecialTokens) {
  const std::string text = "the cat and the dog";
  const std::vector<int32_t> whole = tokenizer_->encode(text, true),
                             bare = tokenizer_->encode(text, false);
  ASSERT_EQ(whole.size(), bare.size() + 2);  // [CLS] and [SEP]
  bool cut = true;
  const Encoding all =
      encode_within(*tokenizer_, text, "", static_cast<int64_t>(whole.size()), &cut);
  EXPECT_EQ(all.ids, whole);
  EXPECT_TRUE(all.types.empty());
  EXPECT_FALSE(cut);
  const Encoding some = encode_within(*tokenizer_, text, "", 4, &cut);
  EXPECT_TRUE(cut);
  EXPECT_EQ(some.ids, (std::vector<int32_t>{whole[0], bare[0], bare[1], whole.back()}));
  EXPECT_EQ(encode_within(*tokenizer_, text, "", 1).ids.size(), 1u);
}

TEST_F(WordPiece, PairsAreCutAsTokenizersCutsThem) {
  const Json golden = read_json(std::string(SLMC_FIXTURES) + "/encoders/pairs.json")["truncated"];
  ASSERT_GT(golden.size(), 50u);
  for (const Json& pair : golden) {
    bool cut = false;
    const std::string first = pair[0], second = pair[1];
    const Encoding ours = encode_within(*tokenizer_, first, second, pair[2].get<int64_t>(), &cut);
    EXPECT_EQ(ours.ids, pair[3].get<std::vector<int32_t>>()) << pair;
    EXPECT_EQ(ours.types, pair[4].get<std::vector<int32_t>>()) << pair;
    EXPECT_EQ(cut, ours.ids.size() < tokenizer_->encode_pair(first, second).ids.size()) << pair;
  }
}

TEST_F(WordPiece, TheMaskTokenIsTheTokenizersOrThereIsNone) {
  const Masking masking = masking_of(*tokenizer_, {}, 0, "m");
  EXPECT_EQ(masking.mask, tokenizer_->token_id("[MASK]"));
  EXPECT_EQ(masking.special[static_cast<size_t>(masking.mask)], 1);
  Assets assets;
  assets.tokenizer_config_json = R"({"mask_token": {"content": "<absent>"}})";
  EXPECT_NE(error_of([&] { masking_of(*tokenizer_, assets, 0, "m"); }).find("no mask token"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc
