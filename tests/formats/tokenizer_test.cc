// The tokenizer as a whole against vectors that Hugging Face `tokenizers` gave
// (fixtures/tokenizer/generate.py), and how it treats damaged files and long texts.
#include "formats/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <random>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "formats/tokenizer/model.h"

namespace slmc {
namespace {

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES "/tokenizer/") + name;
}

std::shared_ptr<const Tokenizer> load(const std::string& name) {
  return Tokenizer::from_json(read_text(fixture(name + ".json")), Json(), name);
}

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   bool skip_special = false) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string out;
  for (const int32_t id : ids) out += decoder.add(id);
  return out + decoder.finish();
}

class TokenizerVectors : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerVectors, EncodeAndDecodeEqualTheOracle) {
  const auto tokenizer = load(GetParam());
  const Json vectors = read_json(fixture("vectors.json"))[GetParam()];
  ASSERT_GT(vectors.size(), 30u);
  for (const Json& v : vectors) {
    const std::string text = v["text"];
    const std::vector<int32_t> ids = v["ids"];
    EXPECT_EQ(tokenizer->encode(text), ids) << v["text"];
    EXPECT_EQ(tokenizer->encode(text, false), v["plain"].get<std::vector<int32_t>>()) << v["text"];
    EXPECT_EQ(tokenizer->decode(ids), v["decoded"].get<std::string>()) << v["text"];
    EXPECT_EQ(tokenizer->decode(ids, true), v["skipped"].get<std::string>()) << v["text"];
    const std::vector<int32_t> reversed(ids.rbegin(), ids.rend());
    EXPECT_EQ(tokenizer->decode(reversed), v["reversed"].get<std::string>()) << v["text"];
    const Encoding pair = tokenizer->encode_pair(text, v["pair"][0].get<std::string>());
    EXPECT_EQ(pair.ids, v["pair"][1].get<std::vector<int32_t>>()) << v["text"];
    EXPECT_EQ(pair.types, v["pair"][2].get<std::vector<int32_t>>()) << v["text"];
  }
}

TEST_P(TokenizerVectors, StreamingGivesTheDecodedText) {
  const auto tokenizer = load(GetParam());
  const Json vectors = read_json(fixture("vectors.json"));
  for (const Json& v : vectors.at(GetParam())) {
    const std::vector<int32_t> ids = v["ids"];
    EXPECT_EQ(stream(*tokenizer, ids), v["decoded"].get<std::string>()) << v["text"];
    EXPECT_EQ(stream(*tokenizer, {ids.rbegin(), ids.rend()}), v["reversed"].get<std::string>())
        << v["text"];
    EXPECT_EQ(stream(*tokenizer, ids, true), v["skipped"].get<std::string>()) << v["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TokenizerVectors,
                         testing::Values("byte_level", "sentence", "unigram", "sentence_words",
                                         "wordpiece", "words"));

TEST(Tokenizer, StreamingHoldsBackIncompleteCharacters) {
  const auto tokenizer = load("byte_level");
  const std::vector<int32_t> ids =
      tokenizer->encode("\xf0\x9f\x99\x82!", false);  // No merges for these bytes: five tokens.
  ASSERT_EQ(ids.size(), 5u);
  StreamDecoder decoder(*tokenizer);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decoder.add(ids[static_cast<size_t>(i)]), "");
  EXPECT_EQ(decoder.add(ids[3]), "\xf0\x9f\x99\x82");
  EXPECT_EQ(decoder.add(ids[4]), "!");
}

TEST(Tokenizer, InvalidBytesBecomeReplacementCharacters) {
  const auto tokenizer = load("byte_level");
  EXPECT_EQ(tokenizer->encode("a\xff\xfe z"), tokenizer->encode("a\xef\xbf\xbd\xef\xbf\xbd z"));
}

TEST(Tokenizer, BosAndEosComeFromTheConfigurationElseTheTemplate) {
  const std::string text = read_text(fixture("byte_level.json"));
  const auto plain = Tokenizer::from_json(text, Json(), "t");
  EXPECT_EQ(plain->bos(), plain->token_id("<|begin_of_text|>"));
  EXPECT_EQ(plain->eos(), -1);
  EXPECT_TRUE(plain->adds_bos());
  const Json config = {{"bos_token", "<|turn|>"}, {"eos_token", {{"content", "<|end_of_text|>"}}}};
  const auto configured = Tokenizer::from_json(text, config, "t");
  EXPECT_EQ(configured->token_text(configured->bos()), "<|turn|>");
  EXPECT_EQ(configured->token_text(configured->eos()), "<|end_of_text|>");
  EXPECT_FALSE(configured->adds_bos());
  EXPECT_TRUE(configured->is_special(configured->eos()));
  EXPECT_EQ(configured->hash(), plain->hash());
  EXPECT_NE(load("sentence")->hash(), plain->hash());
}

TEST(Tokenizer, MergesMayBeStringsOrPairs) {
  Json json = read_json(fixture("byte_level.json"));
  const auto pairs = Tokenizer::from_json(json.dump(), Json(), "pairs");
  for (Json& merge : json["model"]["merges"])
    merge = cat(merge[0].get<std::string>(), " ", merge[1].get<std::string>());
  const auto lines = Tokenizer::from_json(json.dump(), Json(), "lines");
  EXPECT_EQ(lines->hash(), pairs->hash());
  EXPECT_EQ(lines->encode("the oven door"), pairs->encode("the oven door"));
}

TEST(Tokenizer, IgnoreMergesTakesWholePieces) {
  // "abc" is in the vocabulary, but the merges only reach "ab" + "c".
  Json json = {{"added_tokens", Json::array()},
               {"model",
                {{"type", "BPE"},
                 {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"abc", 4}}},
                 {"merges", Json::array({Json::array({"a", "b"})})}}}};
  EXPECT_EQ(Tokenizer::from_json(json.dump(), Json(), "t")->encode("abc"),
            (std::vector<int32_t>{3, 2}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(Tokenizer::from_json(json.dump(), Json(), "t")->encode("abc"),
            (std::vector<int32_t>{4}));
}

/// What merging means, without anything clever: the lowest rank, leftmost first, until none is
/// left.
std::vector<std::string> merged_simply(const Json& model, std::vector<std::string> symbols) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const Json& merge : model["merges"])
    ranks.emplace(std::pair(merge[0], merge[1]), ranks.size());
  while (true) {
    size_t best = ranks.size(), place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, place = i;
    }
    if (best == ranks.size()) return symbols;
    symbols[place] += symbols[place + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(place) + 1);
  }
}

// Long pieces go through a queue by ranks; random rank orders also make pairs that merge before the
// ones that are being merged.
TEST(Tokenizer, LongPiecesMergeAsSimplyAsShortOnes) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    Json merges = Json::array();
    while (tokens.size() < 40) {
      const std::string left = tokens[random() % tokens.size()];
      const std::string right = tokens[random() % tokens.size()];
      if (left.size() + right.size() > 12) continue;
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end())
        tokens.push_back(left + right);
      merges.push_back({left, right});
    }
    std::shuffle(merges.begin(), merges.end(), random);
    Json unique = Json::array();
    for (const Json& merge : merges) {
      if (std::find(unique.begin(), unique.end(), merge) == unique.end()) unique.push_back(merge);
    }
    Json model = {{"type", "BPE"}, {"vocab", Json::object()}, {"merges", unique}};
    for (size_t id = 0; id < tokens.size(); ++id) model["vocab"][tokens[id]] = id;
    const auto tokenizer = Tokenizer::from_json(Json({{"model", model}}).dump(), Json(), "t");
    std::string text;
    std::vector<std::string> symbols;
    for (int i = 0; i < 300; ++i) {
      symbols.emplace_back(1, static_cast<char>('a' + random() % (round % 3 + 1)));
      text += symbols.back();
    }
    std::vector<std::string> pieces;
    for (const int32_t id : tokenizer->encode(text, false))
      pieces.push_back(tokenizer->token_text(id));
    EXPECT_EQ(pieces, merged_simply(model, symbols)) << model["merges"];
  }
}

TEST(Tokenizer, MergingGrowsWithLengthAsItShould) {
  // Steps, not seconds: merging one long word takes four times the steps for four times the length.
  for (const char* name : {"byte_level", "unigram"}) {
    const auto tokenizer = load(name);
    const auto steps = [&](const std::string& unit, size_t count) {
      std::string text;
      for (size_t i = 0; i < count; ++i) text += unit;
      tokenization::merge_steps() = 0;
      const std::vector<int32_t> ids = tokenizer->encode(text, false);
      if (std::string(name) == "byte_level") {
        EXPECT_EQ(tokenizer->decode(ids), text);
      }
      return static_cast<double>(tokenization::merge_steps());
    };
    for (const std::string unit : {"a", "e", " ", "the", "!", "\xe4\xb8\xad"}) {
      const double small = steps(unit, 20000), large = steps(unit, 80000);
      EXPECT_LT(large, small * 4.05 + 1000) << name << " '" << unit << "'";
    }
  }
}

/// Damage done to a good file, and a part of the error's text.
struct Damage {
  std::string name;
  std::function<void(Json&)> apply;
  std::string expected;
};

TEST(Tokenizer, DamagedFilesAreNamedInOneLine) {
  const std::vector<Damage> all = {
      {"no model", [](Json& j) { j.erase("model"); }, "no model"},
      {"model a list", [](Json& j) { j["model"] = Json::array(); }, "not an object"},
      {"no vocab", [](Json& j) { j["model"].erase("vocab"); }, "no vocab"},
      {"no merges", [](Json& j) { j["model"].erase("merges"); }, "without merges"},
      {"id twice", [](Json& j) { j["model"]["vocab"]["new"] = 5; }, "id 5 is given twice"},
      {"negative id", [](Json& j) { j["model"]["vocab"]["new"] = -5; }, "expected a token id"},
      {"huge id", [](Json& j) { j["model"]["vocab"]["new"] = 1000000000; }, "token id over"},
      {"merge of the unknown",
       [](Json& j) {
         j["model"]["merges"].push_back({"qq", "zz"});
       },
       "not in the vocabulary"},
      {"merge of three",
       [](Json& j) {
         j["model"]["merges"].push_back({"a", "b", "c"});
       },
       "two tokens"},
      {"merge a number", [](Json& j) { j["model"]["merges"].push_back(7); }, "expected '['"},
      {"normalizer unknown",
       [](Json& j) {
         j["normalizer"] = {{"type", "Nonesuch"}};
       },
       "normalizer Nonesuch"},
      {"pre-tokenizer unknown",
       [](Json& j) {
         j["pre_tokenizer"] = {{"type", "UnicodeScripts"}};
       },
       "UnicodeScripts"},
      {"decoder unknown",
       [](Json& j) {
         j["decoder"] = {{"type", "CTC"}};
       },
       "CTC"},
      {"model unknown", [](Json& j) { j["model"]["type"] = "Nonesuch"; }, "Nonesuch"},
      {"vocab a list",
       [](Json& j) {
         j["model"]["vocab"] = Json::array({{"a", 0.5}});
       },
       "an object"},
      {"vocab not a list", [](Json& j) { j["model"]["type"] = "Unigram"; }, "[token, score]"},
      {"scored token twice",
       [](Json& j) {
         j["model"]["vocab"] = Json::array({{"a", 0.5}, {"a", 0.5}});
       },
       "same as an earlier"},
      {"score a text",
       [](Json& j) {
         j["model"]["vocab"] = Json::array({{"a", "b"}});
       },
       "expected a number"},
      {"table of replacements broken",
       [](Json& j) {
         j["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAA/w=="}};
       },
       "precompiled_charsmap"},
      {"pattern broken",
       [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }, "PCRE2"},
      {"behavior unknown",
       [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Sideways"; },
       "behavior"},
      {"template names nothing",
       [](Json& j) { j["post_processor"]["single"][0]["SpecialToken"]["id"] = "<x>"; }, "<x>"},
      {"added token without content", [](Json& j) { j["added_tokens"][0].erase("content"); },
       "'content' is missing"},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout"},
  };
  const Json good = read_json(fixture("byte_level.json"));
  for (const Damage& damage : all) {
    Json bad = good;
    damage.apply(bad);
    try {
      Tokenizer::from_json(bad.dump(), Json(), "bad.json");
      ADD_FAILURE() << damage.name << ": no error";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(error.code() == ExitCode::kBadInput || error.code() == ExitCode::kUnsupported)
          << damage.name << ": " << what;
      EXPECT_NE(what.find(damage.expected), std::string::npos) << damage.name << ": " << what;
      EXPECT_NE(what.find("bad.json"), std::string::npos) << damage.name << ": " << what;
      EXPECT_EQ(what.find('\n'), std::string::npos) << damage.name << ": " << what;
    }
  }
}

TEST(Tokenizer, EveryTruncationIsAnError) {
  const std::string text = read_text(fixture("sentence.json"));
  const size_t end = text.find_last_of('}');
  for (size_t length = 0; length <= end; length += length < 300 || length + 300 > end ? 1 : 97) {
    EXPECT_THROW(Tokenizer::from_json(std::string_view(text).substr(0, length), Json(), "cut.json"),
                 Error)
        << length;
  }
}

TEST(Tokenizer, UnknownCharactersNeedAnUnknownToken) {
  Json json = read_json(fixture("unigram.json"));
  json["model"]["unk_id"] = nullptr;
  const auto tokenizer = Tokenizer::from_json(json.dump(), Json(), "t");
  EXPECT_THROW(tokenizer->encode("\xe2\x88\x80"), Error);
  json["model"]["unk_id"] = 100000;
  EXPECT_THROW(Tokenizer::from_json(json.dump(), Json(), "t"), Error);
}

TEST(Tokenizer, WordPieceRefusesLongWordsByCharacters) {
  const auto tokenizer = load("wordpiece");
  const int32_t unknown = tokenizer->token_id("[UNK]");
  std::string word = "the";
  while (word.size() < 100) word += "e";
  EXPECT_NE(tokenizer->encode(word, false)[0], unknown);
  EXPECT_EQ(tokenizer->encode(word + "e", false), std::vector<int32_t>{unknown});
}

/// The vectors of llama.cpp's tests beside the repository: real vocabularies.
TEST(Tokenizer, SharedVocabulariesGiveLlamaCppsIds) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(SLMC_SOURCE_DIR) / ".." / "shared" / "tokenizers";
  if (!fs::exists(folder)) GTEST_SKIP() << "skipped: " << folder << " is not there";
  for (const char* name : {"qwen2", "gpt2", "llama2", "phi-3", "bert-uncased"}) {
    if (!fs::exists(folder / name / "vectors.json")) {
      std::cout << "skipped: no vectors for " << name << "\n";
      continue;
    }
    const auto tokenizer = Tokenizer::open((folder / name).string());
    for (const Json& v : read_json((folder / name / "vectors.json").string())) {
      const std::string text = v["text"];
      EXPECT_EQ(tokenizer->encode(text, false), v["ids"].get<std::vector<int32_t>>())
          << name << " " << v["text"];
    }
  }
}

}  // namespace
}  // namespace slmc
