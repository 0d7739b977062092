// Normalizers, pre-tokenizers, decoders and the Unicode tables one by one, against what Hugging
// Face `tokenizers` gave (fixtures/tokenizer/generate.py); and the hand-written scanners against
// PCRE2 on the same patterns.
#include <gtest/gtest.h>

#include <array>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/random.h"
#include "formats/tokenizer/model.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/patterns.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {
namespace {

const Json& cases() {
  static const Json json = read_json(SLMC_FIXTURES "/tokenizer/components.json");
  return json;
}

std::vector<std::string> pieces_of(const PreTokenizer& pre, const std::string& text) {
  Pieces pieces;
  pieces.text = text;
  pieces.ranges = {{0, text.size()}};
  pre.apply(pieces);
  std::vector<std::string> out;
  for (const auto& range : pieces.ranges) {
    if (range.begin == range.end) continue;
    const std::string piece = pieces.text.substr(range.begin, range.end - range.begin);
    out.push_back(pieces.bytes ? map_bytes(piece) : piece);
  }
  return out;
}

TEST(TokenizerComponents, NormalizersEqualTheOracle) {
  for (const Json& c : cases()["normalizers"]) {
    const auto normalizer = make_normalizer(c["json"], "test");
    for (size_t i = 0; i < cases()["texts"].size(); ++i) {
      EXPECT_EQ(normalizer->apply(cases()["texts"][i]), c["out"][i].get<std::string>())
          << c["json"] << cases()["texts"][i];
    }
  }
}

TEST(TokenizerComponents, PreTokenizersEqualTheOracle) {
  for (const Json& c : cases()["pre_tokenizers"]) {
    const auto pre = make_pre_tokenizer(c["json"], "test");
    for (size_t i = 0; i < cases()["texts"].size(); ++i) {
      if (cases()["texts"][i] == "") continue;  // The pipeline never hands on an empty text.
      EXPECT_EQ(pieces_of(*pre, cases()["texts"][i]), c["out"][i].get<std::vector<std::string>>())
          << c["json"] << cases()["texts"][i];
    }
  }
}

TEST(TokenizerComponents, DecodersEqualTheOracle) {
  for (const Json& c : cases()["decoders"]) {
    const DecoderChain chain(c["json"], "test");
    for (size_t i = 0; i < cases()["token_lists"].size(); ++i) {
      EXPECT_EQ(chain.decode(cases()["token_lists"][i]), c["out"][i].get<std::string>())
          << c["json"] << cases()["token_lists"][i];
    }
  }
}

/// CRC-32 (IEEE 802.3), bit by bit.
uint32_t crc32(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

/// Calls body(code point, its UTF-8) for all but surrogates.
template <typename Body>
void for_all_characters(const Body& body) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    std::string text;
    unicode::append(text, code);
    body(code, text);
  }
}

TEST(Unicode, FormsOfAllCharactersEqualTheOracle) {
  const Json forms = read_json(SLMC_FIXTURES "/tokenizer/unicode.json")["forms"];
  std::string nfc, nfd, nfkc, nfkd, lower;
  for_all_characters([&](uint32_t, const std::string& text) {
    nfc += unicode::composed(text, false) + "\n";
    nfd += unicode::decomposed(text, false) + "\n";
    nfkc += unicode::composed(text, true) + "\n";
    nfkd += unicode::decomposed(text, true) + "\n";
    lower += unicode::lower_case(text) + "\n";
  });
  EXPECT_EQ(crc32(nfc), forms["NFC"].get<uint32_t>());
  EXPECT_EQ(crc32(nfd), forms["NFD"].get<uint32_t>());
  EXPECT_EQ(crc32(nfkc), forms["NFKC"].get<uint32_t>());
  EXPECT_EQ(crc32(nfkd), forms["NFKD"].get<uint32_t>());
  EXPECT_EQ(crc32(lower), forms["lower"].get<uint32_t>());
}

TEST(Unicode, ClassesOfAllCharactersEqualTheOracle) {
  const Json classes = read_json(SLMC_FIXTURES "/tokenizer/unicode.json")["classes"];
  for (const auto& [name, expected] : classes.items()) {
    const uint32_t mask = unicode::category_mask(name);
    std::string members;
    size_t count = 0;
    for_all_characters([&](uint32_t code, const std::string& text) {
      if (!unicode::in_categories(unicode::properties(code), mask)) return;
      members += text;
      ++count;
    });
    EXPECT_EQ(count, expected["count"].get<size_t>()) << name;
    EXPECT_EQ(crc32(members), expected["crc"].get<uint32_t>()) << name;
  }
}

TEST(Unicode, OlderClassesOfAllCharactersEqualTheOracle) {
  const Json legacy = read_json(SLMC_FIXTURES "/tokenizer/unicode.json")["legacy"];
  const std::array<std::pair<const char*, uint8_t>, 3> all = {
      {{"accents", unicode::kCombiningMark},
       {"control", unicode::kRemovedControl},
       {"punctuation", unicode::kOldPunctuation}}};
  for (const auto& [name, bit] : all) {
    std::string members;
    size_t count = 0;
    for_all_characters([&](uint32_t code, const std::string& text) {
      if (!(unicode::legacy(code) & bit)) return;
      members += text;
      ++count;
    });
    EXPECT_EQ(count, legacy[name]["count"].get<size_t>()) << name;
    EXPECT_EQ(crc32(members), legacy[name]["crc"].get<uint32_t>()) << name;
  }
}

TEST(Unicode, GraphemeClustersFollowTheStandard) {
  // Of GraphemeBreakTest.txt, by rule of UAX #29; "|" is where a cluster ends. The last two: what
  // `tokenizers` 0.23 joins is of Unicode 17, which has U+1AE1 and not U+1ADE.
  for (const std::string marked :
       {"\r\n|", "a|\r|", "a\xcc\x88|b|", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8|",
        "\xea\xb0\x80\xe1\x86\xa8|\xe1\x84\x80|",
        "\xd8\x80"
        "a|",
        "\xf0\x9f\x87\xa6\xf0\x9f\x87\xa7|\xf0\x9f\x87\xa8|",
        "\xf0\x9f\x91\xb6\xf0\x9f\x8f\xbf|\xf0\x9f\x91\xb6|",
        "\xf0\x9f\x9b\x91\xe2\x80\x8d\xf0\x9f\x9b\x91|", "a\xe2\x80\x8d|\xf0\x9f\x9b\x91|",
        "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa4\xb7|", "\xe0\xa4\x95|\xe0\xa4\xb7|",
        "\xc2\xa0\xe1\xab\xa1|", "\xc2\xa0|\xe1\xab\x9e|"}) {
    std::string text = marked, found;
    std::erase(text, '|');
    for (size_t at = 0; at < text.size();) {
      const size_t end = unicode::grapheme_end(text, at);
      found += text.substr(at, end - at) + "|";
      at = end;
    }
    EXPECT_EQ(found, marked);
  }
}

TEST(Unicode, LossyDecodingFollowsTheStandard) {
  // The Unicode Standard, table 3-11: one replacement for each longest prefix of a character.
  EXPECT_EQ(unicode::decode_lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"),
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x41");
  EXPECT_EQ(unicode::replace_invalid("\xe1\x80\x41"), "\xef\xbf\xbd\xef\xbf\xbd\x41");
  EXPECT_FALSE(unicode::is_valid("\xed\xa0\x80"));  // A surrogate.
  EXPECT_FALSE(unicode::is_valid("\xc0\x80"));      // Overlong.
  EXPECT_EQ(unicode::incomplete_tail("ab\xf0\x9f\x99"), 3u);
  EXPECT_EQ(unicode::incomplete_tail("ab\xf0\x9f\x99\x82"), 0u);
  EXPECT_EQ(unicode::incomplete_tail("ab\xff"), 0u);
}

std::string random_text(Random& random) {
  static const std::vector<std::string> parts = {"'s",        "'S",          "'ll",
                                                 "'\xc5\xbf", "'",           " ",
                                                 "  ",        "\n",          "\r\n",
                                                 "\t",        "a",           "Word",
                                                 "12",        "3456",        "\xc2\xbd",
                                                 "!",         "...",         "\xe4\xb8\xad",
                                                 "\xc2\xa0",  "\xcc\x81",    "\xf0\x9f\x99\x82",
                                                 "\xc3\xa9",  "\xe2\x80\xa8"};
  std::string text;
  for (uint64_t n = random.below(14); n > 0; --n) {
    if (random.below(10) < 8) {
      text += parts[random.below(parts.size())];
      continue;
    }
    uint32_t code = static_cast<uint32_t>(random.below(0x110000));
    if (code >= 0xd800 && code < 0xe000) code = 0xe9;
    unicode::append(text, code);
  }
  return text;
}

std::vector<std::array<size_t, 3>> stretches(const Matcher& matcher, const std::string& text) {
  std::vector<Match> matches;
  matcher.find(text, matches);
  std::vector<std::array<size_t, 3>> out;
  for (const Match& m : matches) out.push_back({m.begin, m.end, m.matched ? 1u : 0u});
  return out;
}

TEST(TokenizerPatterns, ScannersSplitAsPcreDoes) {
  for (const KnownPattern& known : known_patterns()) {
    const auto scanner = make_regex_matcher(std::string(known.regex), "scanner");
    const auto pcre = make_pcre_matcher(std::string(known.regex), "pcre");
    Random random(11);
    for (int i = 0; i < 5000; ++i) {
      const std::string text = random_text(random);
      ASSERT_EQ(stretches(*scanner, text), stretches(*pcre, text))
          << known.name << " " << Json(text);
    }
  }
}

TEST(TokenizerPatterns, WhatCannotBeTranslatedIsNamed) {
  for (const char* regex : {"[a-z&&[^b]]", "[a[bc]]", "\\X", "\\p{L", "a\\"}) {
    EXPECT_THROW(make_pcre_matcher(regex, "here"), Error) << regex;
  }
}

TEST(TokenizerPatterns, RunawayPatternsEnd) {
  const auto matcher = make_pcre_matcher("(?:a|a)*[bc]", "here");
  std::vector<Match> matches;
  EXPECT_THROW(matcher->find(std::string(40, 'a'), matches), Error);
}

}  // namespace
}  // namespace slmc::tokenization
