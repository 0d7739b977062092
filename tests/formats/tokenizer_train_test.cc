// Training, and the way of a tokenizer into GGUF keys and back. Expected merges are those of
// Hugging Face's trainer on the same text (fixtures/tokenizer/generate.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES "/tokenizer/") + name;
}

const std::vector<std::string> kSpecials = {"<|begin_of_text|>", "<|end_of_text|>", "<|turn|>"};

TEST(TokenizerTraining, MergesEqualTheOracle) {
  const Json trained = parse_json(
      train_bpe({read_text(fixture("corpus.txt"))}, {.vocab = 460, .special_tokens = kSpecials}),
      "trained");
  const Json expected = read_json(fixture("trained.json"));
  EXPECT_EQ(trained["model"]["merges"], expected["merges"]);
  EXPECT_EQ(nlohmann::json::parse(trained["model"]["vocab"].dump()),
            nlohmann::json::parse(expected["vocab"].dump()));
}

TEST(TokenizerTraining, DocumentsAreCountedTogetherAndSpecialsTeachNothing) {
  const std::string text = read_text(fixture("corpus.txt"));
  const BpeTrainingOptions options{.vocab = 300, .special_tokens = kSpecials};
  std::string marked;
  for (const char c : text) marked += c == '\n' ? std::string("\n<|turn|>") : std::string(1, c);
  const auto tokenizer = Tokenizer::from_json(train_bpe({marked}, options), Json(), "t");
  EXPECT_EQ(tokenizer->vocab_size(), 300);
  EXPECT_EQ(tokenizer->token_id("tur"), -1);
  EXPECT_EQ(tokenizer->encode("<|turn|>"), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(train_bpe({text, text}, options), train_bpe({text, text}, options));
}

TEST(TokenizerTraining, StopsWhenNoPairIsFrequent) {
  const auto tokenizer = Tokenizer::from_json(
      train_bpe({"ab ab"}, {.vocab = 1000, .special_tokens = {"<s>"}, .add_bos = false}), Json(),
      "t");
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab")), "ab");
}

TEST(TokenizerTraining, RefusesNonsense) {
  EXPECT_THROW(train_bpe({"a"}, {.vocab = 100, .special_tokens = {}}), Error);
  EXPECT_THROW(train_bpe({"a"}, {.pattern = "lama-bpe", .special_tokens = {}}), Error);
  EXPECT_THROW(train_bpe({"a"}, {.special_tokens = {"<s>", "<s>"}}), Error);
}

Assets assets_of(const std::string& name) {
  Assets assets;
  assets.tokenizer_json = read_text(fixture(name));
  assets.tokenizer_config_json =
      R"({"eos_token":"<|end_of_text|>","bos_token":"<|begin_of_text|>","model_max_length":99})";
  if (name == "sentence.json")
    assets.tokenizer_config_json = R"({"bos_token":"<s>","eos_token":"</s>"})";
  if (name == "wordpiece.json")
    assets.tokenizer_config_json =
        R"({"cls_token":"[CLS]","sep_token":"[SEP]","mask_token":"[MASK]","pad_token":"[PAD]"})";
  if (name == "sentence_words.json")
    assets.tokenizer_config_json = R"({"eos_token":"</s>","pad_token":"<pad>"})";
  assets.chat_template = "{{ messages }}";
  return assets;
}

GgufKeys to_keys(const Assets& assets, int64_t extra) {
  Architecture arch;
  arch.vocab = Tokenizer::from_assets(assets, "test")->vocab_size() + extra;
  GgufKeys keys;
  tokenizer_to_gguf(assets, arch, "test", keys);
  return keys;
}

GgufKeys without_own(const GgufKeys& keys) {
  GgufKeys foreign;
  for (const auto& [key, value] : keys.items()) {
    if (!key.starts_with("slmc.")) foreign.set(key, value);
  }
  return foreign;
}

class TokenizerGguf : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerGguf, IsRebuiltExactly) {
  const Assets assets = assets_of(GetParam());
  const GgufKeys keys = to_keys(assets, 5);
  const auto tokenizer = Tokenizer::from_assets(assets, "test");
  const std::vector<std::string> tokens = keys.strings("tokenizer.ggml.tokens", "test");
  EXPECT_EQ(tokens.size(), static_cast<size_t>(tokenizer->vocab_size()) + 5);
  EXPECT_EQ(tokens.back(), "[PAD" + std::to_string(tokens.size() - 1) + "]");
  EXPECT_EQ(keys.integers("tokenizer.ggml.token_type", "test").back(), 5);
  EXPECT_EQ(keys.string("tokenizer.chat_template", "test"), "{{ messages }}");
  const Assets back = tokenizer_from_gguf(keys, "test");
  const auto rebuilt = Tokenizer::from_assets(back, "test");
  EXPECT_EQ(rebuilt->hash(), tokenizer->hash());
  EXPECT_EQ(rebuilt->bos(), tokenizer->bos());
  EXPECT_EQ(rebuilt->eos(), tokenizer->eos());
  EXPECT_EQ(back.chat_template, assets.chat_template);
  const Json components = read_json(fixture("components.json"));
  for (const Json& text : components.at("texts")) {
    EXPECT_EQ(rebuilt->encode(text.get<std::string>()), tokenizer->encode(text.get<std::string>()))
        << text;
  }
  // Written again, the keys are the same.
  const GgufKeys again = to_keys(back, 5);
  ASSERT_EQ(again.items().size(), keys.items().size());
  for (const auto& [key, value] : keys.items()) EXPECT_TRUE(again.has(key)) << key;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TokenizerGguf,
                         testing::Values("byte_level.json", "sentence.json", "wordpiece.json",
                                         "sentence_words.json"));

TEST(TokenizerGguf, ForeignFilesOfKnownPreTokenizersTokenizeAlike) {
  for (const std::string name :
       {"sentence.json", "wordpiece.json", "sentence_words.json", "trained"}) {
    Assets assets;
    if (name == "trained") {
      assets.tokenizer_json = train_bpe({read_text(fixture("corpus.txt"))},
                                        {.vocab = 460, .special_tokens = kSpecials});
    } else {
      assets = assets_of(name);
    }
    const auto tokenizer = Tokenizer::from_assets(assets, "test");
    const Assets back = tokenizer_from_gguf(without_own(to_keys(assets, 0)), "test");
    const auto rebuilt = Tokenizer::from_assets(back, "test");
    EXPECT_EQ(rebuilt->adds_bos(), tokenizer->adds_bos());
    const Json components = read_json(fixture("components.json"));
    for (const Json& text : components.at("texts")) {
      EXPECT_EQ(rebuilt->encode(text.get<std::string>()),
                tokenizer->encode(text.get<std::string>()))
          << name << text;
    }
  }
}

TEST(TokenizerGguf, WordPieceIsSpelledAsLlamaCppDoes) {
  const Assets assets = assets_of("wordpiece.json");
  const GgufKeys keys = to_keys(assets, 0);
  const auto tokenizer = Tokenizer::from_assets(assets, "test");
  const std::vector<std::string> tokens = keys.strings("tokenizer.ggml.tokens", "test");
  EXPECT_EQ(keys.string("tokenizer.ggml.model", "test"), "bert");
  EXPECT_EQ(tokens.at(static_cast<size_t>(tokenizer->token_id("[CLS]"))), "[CLS]");
  EXPECT_EQ(tokens.at(static_cast<size_t>(tokenizer->token_id("a"))),
            "\xe2\x96\x81"
            "a");
  EXPECT_EQ(tokens.at(static_cast<size_t>(tokenizer->token_id("##a"))), "a");
  EXPECT_EQ(keys.integer("tokenizer.ggml.cls_token_id", "test"), tokenizer->token_id("[CLS]"));
  EXPECT_EQ(keys.integer("tokenizer.ggml.seperator_token_id", "test"),
            tokenizer->token_id("[SEP]"));
  EXPECT_FALSE(keys.has("tokenizer.ggml.merges"));
  Json cased = read_json(fixture("wordpiece.json"));
  cased["pre_tokenizer"] = {{"type", "Whitespace"}};
  Assets other = assets;
  other.tokenizer_json = cased.dump();
  EXPECT_THROW(to_keys(other, 0), Error);
  other.tokenizer_json = read_text(fixture("unigram.json"));
  EXPECT_THROW(to_keys(other, 0), Error);
}

Assets changed(const std::string& name, const std::function<void(Json&)>& change) {
  Assets assets = assets_of(name);
  Json json = parse_json(assets.tokenizer_json, "t");
  change(json);
  assets.tokenizer_json = json.dump();
  return assets;
}

/// Both tokenizers give the same ids for every text of the fixtures.
void expect_alike(const Assets& a, const Assets& b) {
  const auto left = Tokenizer::from_assets(a, "a"), right = Tokenizer::from_assets(b, "b");
  const Json components = read_json(fixture("components.json"));
  for (const Json& text : components.at("texts"))
    EXPECT_EQ(left->encode(text.get<std::string>()), right->encode(text.get<std::string>()))
        << text;
}

TEST(TokenizerGguf, UnigramIsLlamaCppsT5) {
  const GgufKeys keys = to_keys(assets_of("sentence_words.json"), 2);
  EXPECT_EQ(keys.string("tokenizer.ggml.model", "t"), "t5");
  EXPECT_TRUE(keys.boolean_or("tokenizer.ggml.add_space_prefix", false, "t"));
  EXPECT_TRUE(keys.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false, "t"));
  EXPECT_EQ(keys.integer("tokenizer.ggml.unknown_token_id", "t"), 2);
  EXPECT_TRUE(keys.boolean_or("tokenizer.ggml.add_eos_token", false, "t"));
  EXPECT_FALSE(keys.has("tokenizer.ggml.merges"));
  // Scores are floats there; others are kept besides.
  const GgufKeys floats = to_keys(changed("sentence_words.json",
                                          [](Json& j) {
                                            for (Json& token : j["model"]["vocab"])
                                              token[1] = token[1].get<float>();
                                          }),
                                  2);
  EXPECT_FALSE(floats.has("slmc.tokenizer_scores"));
  EXPECT_EQ(keys.integers("tokenizer.ggml.token_type", "t")[2], 2);
  EXPECT_EQ(keys.floats("tokenizer.ggml.scores", "t").back(), -10000.0f);
  const Assets doubles =
      changed("sentence_words.json", [](Json& j) { j["model"]["vocab"][10][1] = -1.0 / 3.0; });
  const GgufKeys exact = to_keys(doubles, 2);
  EXPECT_EQ(Tokenizer::from_assets(tokenizer_from_gguf(exact, "t"), "t")->hash(),
            Tokenizer::from_assets(doubles, "t")->hash());
}

TEST(TokenizerGguf, UnigramThatLlamaCppWouldReadOtherwiseIsRefused) {
  const auto reason = [](const std::function<void(Json&)>& change) -> std::string {
    try {
      to_keys(changed("sentence_words.json", change), 0);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported);
      return error.what();
    }
    return "accepted";
  };
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  EXPECT_EQ(reason([](Json&) {}), "accepted");
  has(reason([](Json& j) { j["model"]["byte_fallback"] = true; }), "byte_fallback");
  has(reason([](Json& j) { j["model"]["unk_id"] = nullptr; }), "unknown token");
  has(reason([](Json& j) { j["normalizer"] = {{"type", "NFKC"}}; }), "precompiled table");
  has(reason([](Json& j) { j["normalizer"] = nullptr; }), "white space");
  has(reason([](Json& j) { j["pre_tokenizer"] = j["decoder"]; }), "into words");
  has(reason([](Json& j) {
        j["model"]["vocab"].push_back({"a\xe2\x96\x81", -3.0});
      }),
      "space inside");
}

TEST(TokenizerGguf, SmolLmsDigitsHaveANameOfTheirOwn) {
  const Assets assets = changed("byte_level.json", [](Json& j) {
    j["pre_tokenizer"]["pretokenizers"] = {
        {{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}};
    j["added_tokens"] = Json::array();  // A foreign file does not say how they are found.
    j["post_processor"] = nullptr;
  });
  const GgufKeys keys = to_keys(assets, 0);
  EXPECT_EQ(keys.string("tokenizer.ggml.pre", "t"), "smollm");
  expect_alike(tokenizer_from_gguf(without_own(keys), "t"), assets);
}

TEST(TokenizerGguf, EmptyNormalizersCountAsNone) {
  const Assets assets = changed("byte_level.json", [](Json& j) {
    j["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  });
  EXPECT_EQ(to_keys(assets, 0).string("tokenizer.ggml.pre", "t"), "llama-bpe");
}

TEST(TokenizerGguf, SentencesMayBeSpelledInOtherWays) {
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\xe2\x96\x81"}};
  // Gemma: no space in front, and a split that finds nothing to split.
  const Assets gemma = changed("sentence.json", [&](Json& j) {
    j["normalizer"] = replace;
    j["pre_tokenizer"] = {{"type", "Split"},
                          {"pattern", {{"String", " "}}},
                          {"behavior", "MergedWithPrevious"},
                          {"invert", false}};
  });
  EXPECT_FALSE(to_keys(gemma, 0).boolean_or("tokenizer.ggml.add_space_prefix", true, "t"));
  EXPECT_TRUE(tokenizer_gguf_notes(gemma, "t").empty());
  // Mistral 0.3: by Metaspace, at the beginning of a text alone.
  const Assets mistral = changed("sentence.json", [&](Json& j) {
    j["normalizer"] = nullptr;
    j["pre_tokenizer"] = {{"type", "Metaspace"},
                          {"replacement", "\xe2\x96\x81"},
                          {"prepend_scheme", "first"},
                          {"split", false}};
  });
  EXPECT_TRUE(to_keys(mistral, 0).boolean_or("tokenizer.ggml.add_space_prefix", false, "t"));
  ASSERT_EQ(tokenizer_gguf_notes(mistral, "t").size(), 1u);
  EXPECT_NE(tokenizer_gguf_notes(mistral, "t")[0].find("special token"), std::string::npos);
  expect_alike(tokenizer_from_gguf(to_keys(mistral, 0), "t"), mistral);
}

TEST(TokenizerGguf, KeysAreWhatLlamaCppReads) {
  const GgufKeys bytes = to_keys(assets_of("byte_level.json"), 0);
  EXPECT_EQ(bytes.string("tokenizer.ggml.model", "t"), "gpt2");
  EXPECT_EQ(bytes.string("tokenizer.ggml.pre", "t"), "llama-bpe");
  EXPECT_EQ(bytes.integer("tokenizer.ggml.bos_token_id", "t"), 0);
  EXPECT_EQ(bytes.integer("tokenizer.ggml.eos_token_id", "t"), 1);
  EXPECT_TRUE(bytes.boolean_or("tokenizer.ggml.add_bos_token", false, "t"));
  EXPECT_EQ(bytes.integers("tokenizer.ggml.token_type", "t")[0], 3);
  const GgufKeys sentence = to_keys(assets_of("sentence.json"), 0);
  EXPECT_EQ(sentence.string("tokenizer.ggml.model", "t"), "llama");
  EXPECT_TRUE(sentence.boolean_or("tokenizer.ggml.add_space_prefix", false, "t"));
  const std::vector<int64_t> types = sentence.integers("tokenizer.ggml.token_type", "t");
  EXPECT_EQ((std::vector<int64_t>(types.begin(), types.begin() + 5)),
            (std::vector<int64_t>{2, 3, 3, 6, 6}));
  EXPECT_EQ(sentence.integer("tokenizer.ggml.unknown_token_id", "t"), 0);
  EXPECT_EQ(sentence.floats("tokenizer.ggml.scores", "t").size(), types.size());
}

TEST(TokenizerGguf, WhatLlamaCppCannotDoIsRefused) {
  const auto refuse = [](auto change) {
    Assets assets = assets_of("byte_level.json");
    Json json = parse_json(assets.tokenizer_json, "t");
    change(json);
    assets.tokenizer_json = json.dump();
    try {
      to_keys(assets, 0);
      ADD_FAILURE() << "not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported) << error.what();
    }
  };
  refuse([](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; });
  refuse([](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  refuse([](Json& j) { j["normalizer"] = {{"type", "Lowercase"}}; });
  refuse([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; });
  GgufKeys foreign = without_own(to_keys(assets_of("byte_level.json"), 0));
  foreign.set("tokenizer.ggml.pre", std::string("tekken"));
  EXPECT_THROW(tokenizer_from_gguf(foreign, "t"), Error);
  GgufKeys small;
  Architecture arch;
  arch.vocab = 10;
  EXPECT_THROW(tokenizer_to_gguf(assets_of("byte_level.json"), arch, "t", small), Error);
}

// Gemma 3's <image_soft_token>: an id past the last row. `listed`: model.vocab has it too.
TEST(TokenizerGguf, AddedTokensBeyondTheRowsStayOutOfTheTables) {
  const auto with_image = [](const std::string& name, int32_t rows, bool listed) {
    return changed(name, [=](Json& j) {
      j["added_tokens"].push_back({{"id", rows}, {"content", "<image>"}, {"special", true}});
      Json& vocab = j["model"]["vocab"];
      if (listed && vocab.is_array()) vocab.push_back({"<image>", -1.0});
      if (listed && vocab.is_object()) vocab["<image>"] = rows;
    });
  };
  const std::vector<std::pair<std::string, bool>> cases = {{"byte_level.json", false},
                                                           {"sentence.json", false},
                                                           {"sentence.json", true},
                                                           {"sentence_words.json", false},
                                                           {"sentence_words.json", true}};
  for (const auto& [name, listed] : cases) {
    SCOPED_TRACE(name + (listed ? ", listed" : ""));
    const int32_t rows = Tokenizer::from_assets(assets_of(name), "t")->vocab_size();
    const Assets assets = with_image(name, rows, listed);
    const auto tokenizer = Tokenizer::from_assets(assets, "t");
    ASSERT_EQ(tokenizer->token_id("<image>"), rows);
    const GgufKeys keys = to_keys(assets, -1);
    EXPECT_EQ(std::ssize(keys.strings("tokenizer.ggml.tokens", "t")), rows);
    EXPECT_EQ(std::ssize(keys.integers("tokenizer.ggml.token_type", "t")), rows);
    const auto rebuilt = Tokenizer::from_assets(tokenizer_from_gguf(keys, "t"), "t");
    EXPECT_EQ(rebuilt->hash(), tokenizer->hash());
    EXPECT_EQ(rebuilt->encode("a<image>"), tokenizer->encode("a<image>"));
    if (name == "byte_level.json") continue;   // Its last tokens are all added.
    EXPECT_THROW(to_keys(assets, -2), Error);  // Here a token of the model's own has no row.
  }
}

TEST(TokenizerGguf, DamagedKeysAreErrors) {
  const GgufKeys good = to_keys(assets_of("byte_level.json"), 0);
  const auto damaged = [&](const char* key, GgufValue value) {
    GgufKeys bad = good;
    bad.set(key, std::move(value));
    EXPECT_THROW(Tokenizer::from_assets(tokenizer_from_gguf(bad, "t"), "t"), Error) << key;
  };
  damaged("slmc.tokenizer", std::string("{"));
  damaged("slmc.tokenizer", std::string("{}"));
  damaged("slmc.tokenizer",
          std::string(R"({"model": {"type": "BPE"}, "slmc_vocabulary_beyond_rows": {"z": 0}})"));
  damaged("tokenizer.ggml.tokens", GgufArray(std::vector<std::string>{"a", "a"}));
  damaged("tokenizer.ggml.token_type", GgufArray(std::vector<int32_t>{1}));
  damaged("tokenizer.ggml.merges", GgufArray(std::vector<std::string>{"ab"}));
  damaged("tokenizer.ggml.merges", GgufArray(std::vector<std::string>{"q zzz"}));
  EXPECT_EQ(tokenizer_from_gguf(GgufKeys(), "t").tokenizer_json, "");
}

}  // namespace
}  // namespace slmc
